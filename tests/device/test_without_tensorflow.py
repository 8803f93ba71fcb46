"""This environment is that of a device: it has no TensorFlow, and nothing of the project imports it."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys

import pytest
from edge_runtime import MultiHeadClassifier
from edge_runtime.errors import InterpreterError
from edge_runtime.interpreter import find_interpreter

from tests.device.conftest import Expected

MODULES = ("cli", "engine", "bundle", "preprocess", "interpreter", "metadata", "quantization", "results", "benchmark")


@pytest.mark.parametrize("name", ["tensorflow", "keras", "litert_quantizer"])
def test_not_installed(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_tflite_runtime_is_installed() -> None:
    assert find_interpreter("tflite_runtime")[0] == "tflite_runtime"


def test_the_first_installed_is_chosen() -> None:
    installed = []
    for name in ("ai_edge_litert", "tflite_runtime"):
        with contextlib.suppress(InterpreterError):
            installed.append(find_interpreter(name)[0])
    assert find_interpreter()[0] == installed[0]


def test_asking_for_tensorflow_says_how_to_get_it(three: Expected) -> None:
    with pytest.raises(InterpreterError, match="pip install tensorflow") as caught:
        MultiHeadClassifier(three.path, interpreter="tensorflow")
    assert "\n" not in str(caught.value)


def test_no_module_of_the_runtime_imports_the_builder() -> None:
    program = (
        f"import sys, importlib\nfor name in {MODULES!r}: importlib.import_module('edge_runtime.' + name)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'keras', 'builder')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_importing_the_runtime_imports_no_interpreter() -> None:
    program = (
        "import sys, edge_runtime.cli, edge_runtime.engine; print([m for m in sys.modules if m.endswith('.interpreter')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['edge_runtime.interpreter']"
