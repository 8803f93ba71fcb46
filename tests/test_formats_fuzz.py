"""A little of ``tests.fuzz_formats`` in every run, always the same; and what longer runs of it found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")

from builder.errors import ModelFileError  # noqa: E402
from builder.formats.keras2 import modernize  # noqa: E402
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


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(definition=models)
def test_any_configuration_is_modernized_or_refused(definition: dict) -> None:  # type: ignore[type-arg]
    try:
        modernize(definition, Path("model.h5"))
    except ModelFileError as error:
        assert "\n" not in str(error)


# Seeds of longer runs that once ended otherwise, by what they were about.
FOUND: dict[str, tuple[str, int]] = {}


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found(files: dict[str, Path], tmp_path: Path, case: str) -> None:
    kind, seed = FOUND[case]
    mutate_file(files[kind], tmp_path / kind, random.Random(seed))
    outcome(tmp_path / kind, built=True)
