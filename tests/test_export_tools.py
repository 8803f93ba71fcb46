"""Other tools open every kind of file and show names that a person recognises."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from builder import BuildResult
from builder.exporting.export import export_split, export_task
from builder.growing.finished import read_finished
from builder.tflite.flatbuffer import read_parts
from builder.tflite.link import link, unlink
from builder.tflite.names import with_names
from edge_runtime.interpreter import open_interpreter
from tests.tiny_models import THREE_HEADS

_CONVERTERS_WORDS = re.compile(r"MatMul|BiasAdd|Relu6?$|batchnorm|convolution|ReadVariable|Identity")


@pytest.fixture(scope="module")
def files(joint: BuildResult, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    export_task(joint.output, folder / "task.tflite")
    export_split(joint.output, folder / "split")
    split = folder / "split"
    return {
        "main": joint.output,
        "task": folder / "task.tflite",
        "backbone": split / "tiny.tflite",
        "pack": split / "tiny.heads" / "garden.tflite",
    }


SIGNATURES = {
    "main": ["serving_default", "backbone", *THREE_HEADS, "all", "joint"],
    "task": ["serving_default"],
    "backbone": ["serving_default", "backbone"],
    "pack": ["garden"],
}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_the_analyzer_reads_it(kind: str, files: dict[str, Path]) -> None:
    import tensorflow as tf

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        tf.lite.experimental.Analyzer.analyze(model_path=str(files[kind]))
    text = printed.getvalue()
    subgraphs = re.findall(r"^Subgraph#\d+ (\w+)\(", text, re.MULTILINE)
    assert sorted(re.findall(r"Signature#\d+ key: '(\w+)'", text)) == sorted(SIGNATURES[kind])
    assert set(subgraphs) <= set(SIGNATURES[kind])
    assert len(subgraphs) == (1 if kind == "backbone" else len(SIGNATURES[kind]))


@pytest.mark.parametrize("kind", SIGNATURES)
def test_litert_runs_it_by_the_names_of_its_signatures(kind: str, files: dict[str, Path]) -> None:
    from ai_edge_litert.compiled_model import CompiledModel

    model, rng = CompiledModel.from_file(str(files[kind])), np.random.default_rng(0)
    _, interpreter = open_interpreter(str(files[kind]))
    signatures = model.get_signature_list()
    assert sorted(signatures) == sorted(SIGNATURES[kind])
    for name, signature in signatures.items():
        shapes = model.get_input_tensor_details(name)
        given = {i: rng.integers(0, 100, shapes[i]["shape"]).astype(shapes[i]["dtype"]) for i in signature["inputs"]}
        expected = interpreter.get_signature_runner(name)(**given)
        inputs = {i: model.create_input_buffer_by_name(name, i) for i in given}
        for i, values in given.items():
            inputs[i].write(values)
        outputs = {o: model.create_output_buffer_by_name(name, o) for o in signature["outputs"]}
        model.run_by_name(name, inputs, outputs)
        assert set(outputs) == set(expected)
        for o, values in expected.items():
            np.testing.assert_array_equal(outputs[o].read(values.size, values.dtype.type), values.ravel())


def test_litert_benchmark_takes_the_main_file(files: dict[str, Path]) -> None:
    program = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", "--model", str(files["main"])]
    command = [*program, "--signature", "garden", "--num_runs", "2", "--warmup_runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(2 runs)" in done.stdout


@pytest.mark.parametrize("kind", SIGNATURES)
def test_tensors_are_called_as_layers_each_once(kind: str, files: dict[str, Path]) -> None:
    for part in read_parts(files[kind].read_bytes()).values():
        names = [tensor.name.decode() for tensor in part.tensors]
        assert len(set(names)) == len(names)
        assert [name for name in names if _CONVERTERS_WORDS.search(name)] == []


def test_weights_are_called_kernel_and_bias_of_their_layer(tiny_file: Path) -> None:
    names = {tensor.name.decode() for tensor in read_finished(tiny_file).parts["garden"].tensors}
    (layer,) = {name.rsplit("/", 1)[0] for name in names if name.endswith("/kernel")}
    assert names == {"garden/features", f"{layer}/kernel", f"{layer}/bias", layer, "garden/scores"}


def test_names_that_were_given_stay(joint: BuildResult) -> None:
    content = joint.output.read_bytes()
    parts, whole = unlink(content, [head.head_name for head in joint.metadata.heads])
    assert link(parts, whole).model == content[: joint.metadata.model_bytes]
    backbone = parts["backbone"]
    assert [t.name for t in with_names(with_names(backbone)).tensors] == [t.name for t in with_names(backbone).tensors]


def test_two_operations_of_one_layer_keep_apart(tiny_file: Path) -> None:
    part = read_finished(tiny_file).parts["backbone"]
    made = [op.outputs[0] for op in part.operators if op.outputs[0] not in part.outputs.values()][:3]
    for number, i in enumerate(made):
        part.tensors[i].name = f"backbone/squeeze/operation_{number}"
    named = with_names(part)
    assert [named.tensors[i].name for i in made] == [f"backbone/squeeze{end}" for end in ("", "_2", "_3")]
    assert part.tensors[made[0]].name == "backbone/squeeze/operation_0"
