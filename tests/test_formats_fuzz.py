"""A little of ``tests.fuzz_formats`` in every run, always the same; and what longer runs of it found."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")

from builder.reading.formats import read_model  # noqa: E402
from builder.reading.formats.keras2 import modernize  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from tests.fuzz_formats import HOSTILE, mutate_file, outcome  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier  # noqa: E402

KINDS = ["keras3.keras", "keras3.h5", "nested.h5", "nested.keras", "stack_saved", "settings_saved", "composite.h5"]


@pytest.fixture(scope="module")
def files(tf_keras_files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keras3")
    model = tiny_classifier(tiny_base(size=16), 3)
    for suffix in (".keras", ".h5"):
        model.save(folder / f"keras3{suffix}")
    return {name: (folder if name.startswith("keras3") else tf_keras_files) / name for name in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_a_model_or_in_one_line(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    found = []
    for seed in range(40):
        rng = random.Random(f"{kind} {seed}")
        target = tmp_path / str(seed) / files[kind].name
        target.parent.mkdir()
        mutate_file(files[kind], target, rng)
        found.append(outcome(target, built=seed % 8 == 0))
    assert "ModelFileError" in found  # else the damage did none


json_values = st.recursive(
    st.sampled_from(HOSTILE) | st.text(max_size=4) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["class_name", "config", "name"]), inner),
    max_leaves=6,
)
layers = st.fixed_dictionaries(
    {"class_name": st.sampled_from(["Dense", "InputLayer", "TFOpLambda", "Sequential", "Merge", "Conv2D", "LSTM"])},
    optional={
        "name": st.sampled_from(["a", "b", "a/b"]) | json_values,
        "config": st.dictionaries(
            st.sampled_from(["name", "layers", "function", "activation", "layer", "batch_input_shape", "dtype"]),
            json_values,
        ),
        "inbound_nodes": st.just([[["a", 0, 0, {}]]]) | json_values,
    },
)
models = st.fixed_dictionaries(
    {
        "class_name": st.sampled_from(["Sequential", "Functional", "Model"]),
        "config": st.fixed_dictionaries(
            {"layers": st.lists(layers, max_size=3) | json_values},
            optional={"input_layers": json_values, "output_layers": json_values, "name": json_values},
        ),
    }
)


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(definition=models)
def test_any_configuration_is_modernized_or_refused(definition: dict) -> None:  # type: ignore[type-arg]
    try:
        modernize(definition, Path("model.h5"))
    except ModelFileError as error:
        assert "\n" not in str(error)


def test_found_a_layer_that_has_its_name_beside_its_settings_only(files: dict[str, Path], tmp_path: Path) -> None:
    """Seed 709: the groups of weights were looked for by a name that tf_keras writes twice, in the wrong place."""
    target = tmp_path / "nested.keras"
    with zipfile.ZipFile(files["nested.keras"]) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                del config["config"]["layers"][-1]["config"]["name"]
                data = json.dumps(config).encode()
            new.writestr(name, data)
    assert ("scores",) in read_model(target).weights


def test_found_addresses_of_memory_among_the_settings(tmp_path: Path) -> None:
    """Keras 3 writes ``shared_object_id``, which is as large as an address, for a Sequential model around a base."""
    model = keras.Sequential([tiny_base(size=16), keras.layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert b"shared_object_id" in archive.read("config.json")
    assert outcome(tmp_path / "m.keras", built=True) == "read"
