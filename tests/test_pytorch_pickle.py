"""The reader takes one known file; behind that, it admits the names of a state dict and no other."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from builder.training import pytorch_pickle as reader
from builder.training.efficientnet_lite0 import load_weights, weights_path

VALUES = np.arange(6, dtype="<f4")


def plain(value: object) -> bytes:
    """The instructions that make a value of builtin types, without the pickle's start and end."""
    return pickle.dumps(value, protocol=2)[2:-1]


def call(function: str, *arguments: bytes) -> bytes:
    module, _, name = function.rpartition(".")
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


def tensor(*, offset: int = 0, shape: tuple = (2, 3), strides: tuple = (3, 1), kind: str = "torch.FloatStorage") -> bytes:
    module, _, name = kind.rpartition(".")
    storage = (
        b"(" + plain("storage") + f"c{module}\n{name}\n".encode() + b"".join(map(plain, ("0", "cpu", 6, None))) + b"tQ"
    )
    fields = b"".join(map(plain, (offset, shape, strides, False)))
    return call("torch._utils._rebuild_tensor_v2", storage, fields, call("collections.OrderedDict"))


def state(value: bytes) -> bytes:
    return b"\x80\x02" + call("collections.OrderedDict") + b"(" + plain("a") + value + b"u."


def whole(
    value: bytes, *, magic: int = reader.MAGIC_NUMBER, protocol: int = reader.PROTOCOL_VERSION, little: bool = True
) -> bytes:
    """As PyTorch wrote it before 1.6."""
    start = [pickle.dumps(v, protocol=2) for v in (magic, protocol, {"little_endian": little})]
    return b"".join([*start, state(value), pickle.dumps(["0"], protocol=2), struct.pack("<q", 6), VALUES.tobytes()])


def archive(value: bytes, *, order: bytes | None = b"little", folders: tuple[str, ...] = ("model",)) -> bytes:
    """As it writes it since then."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as members:
        for folder in folders:
            members.writestr(f"{folder}/data.pkl", state(value))
            members.writestr(f"{folder}/data/0", VALUES.tobytes())
            if order is not None:
                members.writestr(f"{folder}/byteorder", order)
    return stream.getvalue()


both = pytest.mark.parametrize("saved", [whole, archive])


def read(content: bytes) -> dict[str, np.ndarray]:
    return reader.read_state_dict(content, sha256=hashlib.sha256(content).hexdigest())


@both
def test_views_of_a_storage(saved: Callable[[bytes], bytes]) -> None:
    for view, expected in (
        ({}, VALUES.reshape(2, 3)),
        ({"shape": (3, 2), "strides": (1, 3)}, VALUES.reshape(2, 3).T),
        ({"offset": 5, "shape": (), "strides": ()}, VALUES[5]),
        ({"offset": 1, "shape": (2,), "strides": (2,)}, VALUES[1::2][:2]),
    ):
        found = read(saved(tensor(**view)))["a"]
        np.testing.assert_array_equal(found, expected)
        assert not found.flags.writeable


@pytest.mark.parametrize("place", [0, 40, -1])
def test_one_other_byte_is_another_file_and_nothing_of_it_is_run(place: int) -> None:
    content = bytearray(whole(tensor()))
    digest = hashlib.sha256(content).hexdigest()
    content[place] ^= 1
    with pytest.raises(reader.TensorFileError, match="expected the file with SHA-256"):
        reader.read_state_dict(bytes(content), sha256=digest)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.load", "collections.deque", "torch.DoubleStorage",
                                  "torch._utils._rebuild_tensor", "collections.OrderedDict.fromkeys"])  # fmt: skip
@both
def test_names_that_a_state_dict_does_not_need_are_refused(name: str, saved: Callable[[bytes], bytes]) -> None:
    with pytest.raises(reader.TensorFileError, match="expected a state dict of tensors"):
        read(saved(call(name, plain("true"))))


@pytest.mark.parametrize(
    "view", [{"offset": 1}, {"shape": (3, 3)}, {"strides": (4, 1)}, {"shape": (7,), "strides": (1,)}]
)
@both
def test_a_view_outside_its_storage_is_refused(view: dict, saved: Callable[[bytes], bytes]) -> None:
    with pytest.raises(reader.TensorFileError, match="inside its storage"):
        read(saved(tensor(**view)))


@pytest.mark.parametrize("start", [{"magic": 1}, {"protocol": 1002}, {"little": False}])
def test_another_format_is_refused(start: dict) -> None:
    with pytest.raises(reader.TensorFileError, match=r"expected a file of torch\.save, little-endian"):
        read(whole(tensor(), **start))


def test_an_archive_of_the_other_byte_order_or_of_two_models_is_refused() -> None:
    assert read(archive(tensor(), order=None)).keys() == {"a"}  # before PyTorch 2.1
    with pytest.raises(reader.TensorFileError, match="expected a little-endian file"):
        read(archive(tensor(), order=b"big"))
    for folders in ((), ("one", "two")):
        with pytest.raises(reader.TensorFileError, match=rf"one member data\.pkl of the archive, found {len(folders)}"):
            read(archive(tensor(), folders=folders))


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(whole(tensor()))
    with pytest.raises(reader.TensorFileError, match=r"other\.pth: expected the file"):
        load_weights(path)


def test_the_published_weights_are_read_and_sound() -> None:
    published = load_weights(weights_path())
    assert len(published) == 296  # 49 convolutions, 49 x 5 of BatchNormalization, kernel and bias of the last layer
    assert published["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert (published["_fc.weight"].shape, published["_fc.bias"].shape) == ((1000, 1280), (1000,))
    statistics = ("num_batches_tracked", "running_mean", "running_var")
    parameters = sum(math.prod(a.shape) for key, a in published.items() if not key.endswith(statistics))
    assert parameters == 4_652_008  # 4.7 million, as published for EfficientNet-Lite0
    for key, array in published.items():
        assert array.dtype == (np.int64 if key.endswith("num_batches_tracked") else np.float32), key
        assert np.isfinite(array).all(), key
        assert not key.endswith("running_var") or (array >= 0).all(), key
