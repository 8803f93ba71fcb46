"""Read the tensors of a PyTorch state dict into NumPy without PyTorch, and admit nothing else.

    state = read_state_dict(Path("efficientnet-lite0-57934424.pth"))   # {"_conv_stem.weight": array, ...}

Unpickling a file means running it: a pickle is a program for a small stack machine, and two of its
instructions call anything that can be imported. So the module `pickle` is not used here. The few instructions
that a state dict needs are carried out by `_Machine`, which can build dicts, lists, tuples, strings and
integers, and knows four names; the rest is refused.

The file is the one that `torch.save` wrote before PyTorch 1.6: five pickles (magic number, protocol version,
the writer's byte order, the state dict, the order of the storages), then each storage as an int64 count and
its little-endian elements. The zip files of newer versions are refused by name.
"""

from __future__ import annotations

import enum
import io
import math
import pickletools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
MAX_FILE_BYTES = 256 * 2**20
MAX_INSTRUCTIONS = 200_000  # of one pickle; a state dict takes about 50 for each tensor
MAX_DIMENSIONS = 8


class TensorFileError(ValueError):
    """The file is not a legacy PyTorch state dict, or holds more than tensors."""


class _Name(enum.Enum):
    """All that a state dict may name. They are marks, never callables; the value is `module name`."""

    DICT = "collections OrderedDict"
    TENSOR = "torch._utils _rebuild_tensor_v2"
    FLOATS = "torch FloatStorage"
    LONGS = "torch LongStorage"


_DTYPES = {_Name.FLOATS: np.dtype("<f4"), _Name.LONGS: np.dtype("<i8")}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage: `offset` and `strides` count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_CONSTANTS = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
              "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}  # fmt: skip
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_METHODS = {
    "MARK": "mark", "TUPLE": "tuple_", "GLOBAL": "name", "REDUCE": "call", "BINPERSID": "storage",
    "BUILD": "attributes", "SETITEM": "set_item", "SETITEMS": "set_items", "APPEND": "append",
    "APPENDS": "extend", "BINPUT": "put", "LONG_BINPUT": "put", "BINGET": "get", "LONG_BINGET": "get",
}  # fmt: skip
_ADMITTED = {"PROTO", "STOP", *_CONSTANTS, *_LITERALS, *_TUPLES, *_METHODS}
# The standard library's table of instructions: how each one's argument is stored.
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class _Machine:
    """The stack machine of one pickle. Values hold only what `_Name` and the literals can make."""

    def __init__(self) -> None:
        self.stack: list = []
        self.outer: list[list] = []  # the stacks below each mark
        self.memo: dict[int, object] = {}  # a dict: a large index reserves no memory

    def step(self, name: str, argument: object) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _TUPLES:
            self.stack.append(tuple(self.pop() for _ in range(_TUPLES[name]))[::-1])
        elif name != "PROTO":
            method = getattr(self, _METHODS[name])
            method() if argument is None else method(argument)

    def pop(self) -> object:
        _expect(bool(self.stack), "a value on the pickle's stack, found none")
        return self.stack.pop()

    def top(self, expected: type) -> list | dict:
        _expect(bool(self.stack) and type(self.stack[-1]) is expected, f"a {expected.__name__} to put items into")
        return self.stack[-1]

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list:
        _expect(bool(self.outer), "a mark on the pickle's stack, found none")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def tuple_(self) -> None:
        items = tuple(self.pop_to_mark())
        self.stack.append(items)

    def name(self, name: str) -> None:
        _expect(name in {known.value for known in _Name}, f"no name but a state dict's own, found {name!r:.80}")
        self.stack.append(_Name(name))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        _expect(isinstance(arguments, tuple), "a tuple of arguments")
        if function is _Name.TENSOR:
            self.stack.append(_tensor(arguments))
        else:
            _expect(function is _Name.DICT and not arguments, "a call that makes a tensor or an empty dict")
            self.stack.append({})

    def storage(self) -> None:
        self.stack.append(_storage(self.pop()))

    def attributes(self) -> None:
        """An OrderedDict's attributes (`_metadata`) are no tensors: they are read and dropped."""
        state = self.pop()
        _expect(isinstance(state, dict), "attributes in a dict")
        self.top(dict)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.put_items([key, value])

    def set_items(self) -> None:
        self.put_items(self.pop_to_mark())

    def put_items(self, items: list) -> None:
        keys = items[::2]
        # Strings only: to hash a tuple nested a million deep would overflow the C stack.
        _expect(
            len(items) % 2 == 0 and all(type(key) is str for key in keys),
            "keys that are strings, each with a value",
        )
        self.top(dict).update(zip(keys, items[1::2], strict=True))

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def extend(self) -> None:
        items = self.pop_to_mark()
        self.top(list).extend(items)

    def put(self, index: int) -> None:
        _expect(bool(self.stack), "a value to remember, found none")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        _expect(index in self.memo, f"a remembered value, found none at {index}")
        self.stack.append(self.memo[index])


def _expect(condition: bool, expected: str) -> None:
    if not condition:
        raise TensorFileError(f"not a PyTorch state dict of tensors: expected {expected}")


def _is_count(value: object) -> bool:
    """An integer, no bool, that can count something in a file of the size admitted."""
    return type(value) is int and 0 <= value <= MAX_FILE_BYTES


def _storage(value: object) -> _Storage:
    """From `("storage", kind, key, device, count, None)`."""
    _expect(isinstance(value, tuple) and len(value) == 6 and value[0] == "storage", "a storage's six fields")
    _, kind, key, device, count, view = value
    _expect(isinstance(kind, _Name) and kind in _DTYPES, "a FloatStorage or a LongStorage")
    _expect(
        type(key) is str and type(device) is str and view is None,
        "a storage with a key, a device and no view",
    )
    _expect(_is_count(count), "a storage's number of elements")
    return _Storage(key, _DTYPES[kind], count)


def _tensor(arguments: tuple) -> _Tensor:
    """From `(storage, offset, shape, strides, requires_grad, hooks)`, all elements inside the storage."""
    _expect(len(arguments) == 6, "a tensor's six fields")
    storage, offset, shape, strides, requires_grad, hooks = arguments
    _expect(
        isinstance(storage, _Storage) and _is_count(offset),
        "a tensor with a storage and an offset of 0 or more",
    )
    for sizes in (shape, strides):
        _expect(isinstance(sizes, tuple) and all(map(_is_count, sizes)), "sizes and strides of 0 or more")
    _expect(len(shape) == len(strides) <= MAX_DIMENSIONS, f"as many strides as sizes, at most {MAX_DIMENSIONS}")
    _expect(type(requires_grad) is bool and type(hooks) is dict and not hooks, "a tensor without hooks")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # The product also keeps a stride of 0 from blowing one element up to any size.
    inside = all(shape) and math.prod(shape) <= storage.count and last < storage.count
    _expect(inside, f"a tensor inside its storage of {storage.count} elements")
    return _Tensor(storage, offset, shape, strides)


def _read_name(stream: io.BytesIO) -> str:
    """`module name` from two lines, as they stand (the standard library's reader resolves escapes)."""
    lines = [stream.readline(), stream.readline()]
    _expect(all(line.endswith(b"\n") for line in lines), "a name in two lines, found them cut short")
    return " ".join(line[:-1].decode("latin-1") for line in lines)


def _load(stream: io.BytesIO) -> object:
    """Carry out one pickle from where the stream stands; leave it behind the pickle's end."""
    machine = _Machine()
    for _ in range(MAX_INSTRUCTIONS):
        opcode = _OPCODES.get(stream.read(1))
        # Checked before the argument is read: some arguments are slow to decode.
        _expect(opcode is not None and opcode.name in _ADMITTED,
                f"a state dict's instructions, found {opcode.name if opcode else 'none'}")  # fmt: skip
        try:
            argument = None
            if opcode.arg:
                argument = _read_name(stream) if opcode.name == "GLOBAL" else opcode.arg.reader(stream)
        except ValueError as error:
            raise TensorFileError(f"not a PyTorch state dict: cut short or damaged ({error})") from None
        if opcode.name == "STOP":
            _expect(len(machine.stack) == 1 and not machine.outer, "one value at the end of a pickle")
            return machine.stack[0]
        machine.step(opcode.name, argument)
    raise TensorFileError(f"a pickle of more than {MAX_INSTRUCTIONS} instructions: too large for a state dict")


def _check_start(stream: io.BytesIO) -> None:
    if stream.getvalue()[:4] == b"PK\x03\x04":
        raise TensorFileError("a zip file, as torch.save writes since 1.6: expected the older format; "
                              "save it again with _use_new_zipfile_serialization=False")  # fmt: skip
    for expected, what in ((MAGIC_NUMBER, "magic number"), (PROTOCOL_VERSION, "protocol version")):
        found = _load(stream)
        _expect(type(found) is int and found == expected, f"the {what} {expected}")
    system = _load(stream)
    _expect(type(system) is dict and system.get("little_endian") is True, "a file written in little-endian order")


def _read_storages(stream: io.BytesIO, storages: dict[str, _Storage]) -> dict[str, np.ndarray]:
    keys = _load(stream)
    _expect(type(keys) is list and all(type(key) is str for key in keys), "a list of the storages' keys")
    _expect(len(keys) == len(set(keys)) and set(keys) == set(storages), "each storage of the tensors exactly once")
    arrays = {}
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(stream.read(8), "little")
        content = stream.read(storage.count * storage.dtype.itemsize)
        whole = count == storage.count and len(content) == storage.count * storage.dtype.itemsize
        _expect(whole, f"a storage of {storage.count} elements, found it cut short or of another size")
        arrays[key] = np.frombuffer(content, storage.dtype)
    _expect(not stream.read(1), "the end of the file behind the last storage")
    return arrays


def _view(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    strides = [stride * elements.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides, writeable=False)


def parse_state_dict(content: bytes) -> dict[str, np.ndarray]:
    """As `read_state_dict`, from the bytes of a file."""
    stream = io.BytesIO(content)
    _check_start(stream)
    state = _load(stream)
    _expect(type(state) is dict and len(state) > 0, "a state dict that holds tensors")
    storages: dict[str, _Storage] = {}
    for name, tensor in state.items():
        _expect(isinstance(tensor, _Tensor), f"a tensor at {name!r:.80}")
        same = storages.setdefault(tensor.storage.key, tensor.storage) == tensor.storage
        _expect(same, f"one size and type for the storage of {name!r:.80}")
    arrays = _read_storages(stream, storages)
    return {name: _view(tensor, arrays[tensor.storage.key]) for name, tensor in state.items()}


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name, in the file's order: read-only float32 or int64 arrays, axes as PyTorch keeps them.

    Raises TensorFileError, with one line that says what was expected, for any other file, and OSError as
    `open` does.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TensorFileError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, found {path.stat().st_size}")
    try:
        return parse_state_dict(path.read_bytes())
    except TensorFileError as error:
        raise TensorFileError(f"{path}: {error}") from None
