"""Files made to do harm: each ends in one line, nothing of theirs is run, nothing is written, no memory is spent."""

from __future__ import annotations

import io
import json
import resource
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.formats import read_model  # noqa: E402
from builder.reading.formats.cleaned import write_cleaned  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier  # noqa: E402

Config = dict[str, Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``good.keras`` and ``good.h5`` of one model, a base nested in it."""
    folder = tmp_path_factory.mktemp("good")
    model = tiny_classifier(tiny_base(size=16), 3)
    model.save(folder / "good.keras")
    model.save(folder / "good.h5")
    return folder


def change_config(source: Path, target: Path, change: Callable[[Config], None]) -> None:
    """``source`` with its configuration changed in place by ``change``."""
    if source.suffix == ".h5":
        target.write_bytes(source.read_bytes())
        with h5py.File(target, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            new.writestr(name, data)


def change_weights(source: Path, target: Path, change: Callable[[h5py.File], None]) -> None:
    """``source`` with its HDF5 part changed in place."""
    if source.suffix == ".h5":
        target.write_bytes(source.read_bytes())
        with h5py.File(target, "r+") as file:
            change(file)
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "model.weights.h5":
                stream = io.BytesIO(data)
                with h5py.File(stream, "r+") as file:
                    change(file)
                data = stream.getvalue()
            new.writestr(name, data)


def refused(path: Path, words: str, act: Callable[[Path], object] = read_model) -> None:
    """Reading ``path`` ends in one line with ``words`` in it, at once and in little memory; nothing appears beside it.

    ``act``: what else is done with it.
    """
    before = sorted(path.parent.iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError, match=words) as error:
        act(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert sorted(path.parent.iterdir()) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # kB


def last(config: Config) -> Config:
    found: Config = config["config"]["layers"][-1]
    return found


def set_last(**values: Any) -> Callable[[Config], None]:
    return lambda config: last(config).update(values)


def set_setting(**values: Any) -> Callable[[Config], None]:
    return lambda config: last(config)["config"].update(values)


def deep(config: Config) -> None:
    inner: Any = []
    for _ in range(500):
        inner = [inner]
    last(config)["config"]["activation"] = inner


def twice(config: Config) -> None:
    config["config"]["layers"].append(last(config))


def in_circles(config: Config) -> None:
    config["config"]["layers"][1]["inbound_nodes"] = last(config)["inbound_nodes"]


CONFIGS = {
    "a Lambda": (set_last(class_name="Lambda"), "layer 'scores' is of class Lambda: it would run code"),
    "a lambda as activation": (
        set_setting(activation={"class_name": "__lambda__", "config": {"value": "eJw="}}), "__lambda__: it would run",
    ),
    "a module of Python's": (set_last(module="os", class_name="system"), "'os.system', which is not one of Keras's own"),
    "a helper of Keras's": (set_last(module="keras.utils", class_name="get_file"), "'keras.utils.get_file', which is"),
    "a registered class": (set_last(registered_name="mine>Dense"), "'mine>Dense', which is not one of Keras's own"),
    "another file": (set_last(class_name="TFSMLayer"), "TFSMLayer: it would run code"),
    "a hub layer": (set_last(class_name="KerasLayer"), "a TensorFlow Hub layer: its weights are in the file, but not"),
    "a pickled torch module": (set_last(class_name="TorchModuleWrapper"), "it would run code"),
    "a class that is no text": (set_last(class_name=["Dense"]), "class name that is not text"),
    "a subclassed model": (lambda c: c.update(class_name="Mine", module="keras"), r"of class '?(keras\.)?Mine"),
    "a dotted Lambda": (set_last(module="keras", class_name="layers.Lambda"), "is of class layers.Lambda: it would run"),
    "a dotted layer": (set_last(module="keras", class_name="layers.Dense"), "'keras.layers.Dense', which is not one of"),
    "a dotted model": (set_last(module="keras", class_name="models.Sequential"), "'keras.models.Sequential', which is"),
    "a wrapper of JAX": (set_last(module="keras", class_name="layers.JaxLayer"), "it would run code"),
    "a function of another module": (set_last(module="keras.src.ops.core", class_name="Map"), "'keras.src.ops.core.Map'"),
    "a loop": (set_last(module="keras.ops", class_name="WhileLoop"), "'keras.ops.WhileLoop', which is not one of"),
    "a function of keras.layers": (set_last(module="keras.layers", class_name="deserialize"), "which is not one of"),
    "a helper called as plain values are": (set_last(module="os", class_name="__tuple__"), "'os.__tuple__', which is"),
    "a module that is no text": (set_last(module=["keras.layers"]), "a module or a registered name that is not text"),
    "get as activation": (
        set_setting(activation={"module": "builtins", "class_name": "function", "config": "deserialize"}), "not one of",
    ),
    "no layers": (lambda c: c.update(config={}), "no layers|not that of a Keras model"),
    "a layer without a name": (set_last(config={}, name=None), "without a class or a name|not that of|without a name"),
    "two layers of one name": (twice, "two layers 'scores'"),
    "deep": (deep, "nested too deeply"),
    "a million million units": (set_setting(units=10**12), "a setting 1000000000000; expected numbers up to 1,048,576"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("case", CONFIGS)
def test_a_hostile_configuration_is_refused(good: Path, tmp_path: Path, case: str, suffix: str) -> None:
    change, words = CONFIGS[case]
    change_config(good / f"good{suffix}", tmp_path / f"bad{suffix}", change)
    refused(tmp_path / f"bad{suffix}", words)


def test_deeper_than_json_can_be(good: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(good / "good.keras") as old, zipfile.ZipFile(tmp_path / "bad.keras", "w") as new:
        new.writestr("config.json", b'{"class_name": "Functional", "config": ' + b"[" * 1_000_000)
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    refused(tmp_path / "bad.keras", "no JSON|nested too deeply")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_is_never_run(good: Path, tmp_path: Path, suffix: str) -> None:
    """Losses, metrics, shapes to build at: what Keras would act on leaves before anything is made of it."""
    canary = tmp_path / "canary"
    code = {"module": "builtins", "class_name": "function", "config": f"open({str(canary)!r}, 'w')"}

    def change(config: Config) -> None:
        config["compile_config"] = {"optimizer": code, "loss": code, "metrics": [code]}
        for layer in config["config"]["layers"]:
            layer["build_config"] = {"input_shape": [None, 10**9, 10**9]}

    change_config(good / f"good{suffix}", tmp_path / f"odd{suffix}", change)
    definition = read_model(tmp_path / f"odd{suffix}").definition
    assert "build_config" not in json.dumps(definition)
    assert "compile_config" not in json.dumps(definition)
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_cleaned_copy_computes_the_same_and_holds_nothing_to_act_on(good: Path, tmp_path: Path, suffix: str) -> None:
    def change(config: Config) -> None:
        config["compile_config"] = {"loss": {"class_name": "__lambda__", "config": {"value": "eJw="}}}
        config["config"]["layers"][1]["compile_config"] = {"optimizer": "adam"}
        last(config)["build_config"] = {"input_shape": [None, 10**9]}

    odd = tmp_path / f"odd{suffix}"
    change_config(good / f"good{suffix}", odd, change)
    (tmp_path / "clean").mkdir()
    copy = write_cleaned(odd, tmp_path / "clean")
    shown = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    expected, found = (np.asarray(keras.saving.load_model(path)(shown)) for path in (good / f"good{suffix}", copy))
    assert np.array_equal(found, expected)
    content = h5py.File(copy).attrs["model_config"] if suffix == ".h5" else zipfile.ZipFile(copy).read("config.json")
    assert "compile_config" not in str(content)
    assert "build_config" not in str(content)
    assert list((tmp_path / "clean").iterdir()) == [copy]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_nothing_is_copied_of_a_file_that_brings_code(good: Path, tmp_path: Path, suffix: str) -> None:
    bad = tmp_path / f"bad{suffix}"
    change_config(good / f"good{suffix}", bad, set_last(module="keras", class_name="layers.Lambda"))
    refused(bad, "it would run code", lambda path: write_cleaned(path, tmp_path))


def test_code_is_read_where_it_is_allowed(tmp_path: Path) -> None:
    layers = keras.layers
    stack = [keras.Input((4, 4, 3)), layers.Lambda(lambda x: x * 2), layers.Flatten(), layers.Dense(2)]
    keras.Sequential(stack).save(tmp_path / "m.keras")
    refused(tmp_path / "m.keras", "is of class Lambda: it would run code from the file; .* give --allow-code")
    model = read_model(tmp_path / "m.keras", allow_code=True)
    assert [layer["class_name"] for layer in model.definition["config"]["layers"]][1] == "Lambda"


def a_dataset(file: h5py.File) -> str:
    """The full name of one that holds weights."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and item.ndim > 1 else None)
    return names[-1]


def replace_with(**options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        name = a_dataset(file)
        del file[name]
        file.create_dataset(name, **options)

    return change


def link(target: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        name = a_dataset(file)
        del file[name]
        file[name] = target

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4, 4))
    name = a_dataset(file)
    del file[name]
    file.create_virtual_dataset(name, layout)


def loop(file: h5py.File) -> None:
    file["again"] = file["/"]


def deep_groups(file: h5py.File) -> None:
    file.create_group("/".join("g" * 100))


def gone(file: h5py.File) -> None:
    del file[a_dataset(file)]


bomb = replace_with(shape=(1 << 15, 1 << 14), dtype="f4", chunks=(1 << 12, 1 << 12), compression="gzip", fillvalue=1.0)
WEIGHTS = {
    "terabytes": (replace_with(shape=(1 << 20, 1 << 20), dtype="f4", chunks=(64, 64)), "claims shape .1048576, 1048576"),
    "a bomb": (bomb, "claims shape .32768, 16384.*, but the file holds 0 bytes"),
    "an external file": (
        replace_with(shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)]), "lies in other files; save the model",
    ),
    "a virtual dataset": (virtual, "lies in other files"),
    "a soft link": (link(h5py.SoftLink("/nowhere")), "is a link; expected groups and datasets only"),
    "a link to a file": (link(h5py.ExternalLink("/etc/passwd", "/x")), "is a link"),
    "text": (replace_with(data=["a", "b"], dtype=h5py.string_dtype()), "expected plain numbers"),
    "rows of any length": (replace_with(shape=(2,), dtype=h5py.vlen_dtype("f4")), "expected plain numbers"),
    "references": (replace_with(shape=(2,), dtype=h5py.ref_dtype), "expected plain numbers"),
    "complex numbers": (replace_with(data=np.ones(4, "c8")), "expected plain numbers"),
    "depth": (deep_groups, "64 deep; found more"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("case", WEIGHTS)
def test_hostile_weights_are_refused(good: Path, tmp_path: Path, case: str, suffix: str) -> None:
    change, words = WEIGHTS[case]
    change_weights(good / f"good{suffix}", tmp_path / f"bad{suffix}", change)
    refused(tmp_path / f"bad{suffix}", words)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_missing_weight_is_refused(good: Path, tmp_path: Path, suffix: str) -> None:
    change_weights(good / f"good{suffix}", tmp_path / f"bad{suffix}", gone)
    refused(tmp_path / f"bad{suffix}", "bad")


def test_a_group_within_itself_ends(good: Path, tmp_path: Path) -> None:
    change_weights(good / "good.h5", tmp_path / "odd.h5", loop)
    assert read_model(tmp_path / "odd.h5").weights


def test_weights_that_do_not_fit_are_refused_where_they_are_set(good: Path, tmp_path: Path) -> None:
    change_weights(good / "good.h5", tmp_path / "bad.keras", replace_with(data=np.ones((2, 2), "f4")))
    model = read_model(tmp_path / "bad.keras")
    with pytest.raises(ModelFileError, match=r"do not fit it|its layers have .* weights, and the file"):
        model.live()


def test_nan_is_a_number(good: Path, tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file[a_dataset(file)][...] = np.nan

    change_weights(good / "good.keras", tmp_path / "odd.keras", change)
    assert any(np.isnan(w).any() for values in read_model(tmp_path / "odd.keras").weights.values() for w in values)


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)


ARCHIVES = {
    "a zip bomb": ({"config.json": b"0" * (70 << 20)}, "bytes that unpack to 73,400,320; expected at most 200 times"),
    "a path out of it": ({"config.json": b"{}", "../evil": b"x"}, "'../evil' would leave the archive's folder"),
    "a path from the root": ({"/etc/passwd": b"x"}, "would leave"),
    "a path of Windows": ({"C:\\x": b"x"}, "would leave"),
    "too many members": ({str(i): b"" for i in range(10_001)}, "expected at most 10000 members"),
    "no weights": ({"config.json": b"{}"}, "no model.weights.h5 in the archive"),
    "no configuration": ({"model.weights.h5": b"x"}, "no config.json in the archive"),
    "a list": ({"config.json": b"[]", "model.weights.h5": b"x"}, "not that of a Keras model"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_hostile_archives_are_refused(tmp_path: Path, case: str) -> None:
    members, words = ARCHIVES[case]
    archive(tmp_path / "bad.keras", members, zipfile.ZIP_DEFLATED)
    refused(tmp_path / "bad.keras", words)


def test_an_encrypted_member_is_refused(good: Path, tmp_path: Path) -> None:
    data = bytearray((good / "good.keras").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of each local and central header
        place = data.find(mark)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(mark, place + 4)
    (tmp_path / "bad.keras").write_bytes(bytes(data))
    refused(tmp_path / "bad.keras", "cannot be unpacked|not a whole")


def test_layers_larger_than_their_weights_are_never_made(tmp_path: Path) -> None:
    """The original is built only if the file has as many weights as its layers need."""
    layers = keras.layers
    attention = layers.MultiHeadAttention(2, 2)
    source = keras.Input((8, 8, 3))
    rows = layers.Reshape((64, 3))(source)
    x = layers.Flatten()(attention(rows, rows))
    keras.Model(source, layers.Dense(2)(x)).save(tmp_path / "good.keras")

    def merged(path: Path) -> object:
        classifier = replace(Reader().read("a", path, PREPROCESSING["tf"]), labels=("x", "y"))
        return merge([classifier], find_backbone([classifier]))

    def change(config: Config) -> None:
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "MultiHeadAttention":
                layer["config"].update(num_heads=1 << 7, key_dim=1 << 18)

    change_config(tmp_path / "good.keras", tmp_path / "bad.keras", change)
    refused(tmp_path / "bad.keras", r"expected weights of shapes .*, found", merged)
