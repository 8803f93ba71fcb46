"""``examples/pytorch_heads.py`` without PyTorch: the settings and pictures that it writes are a build's."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from builder.settings.config import BuildConfig
from builder.settings.input_scaling import PREPROCESSING

EXAMPLE = Path(__file__).parent.parent / "examples" / "pytorch_heads.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    torch: Any = types.ModuleType("torch")
    torch.nn = types.ModuleType("torch.nn")
    torch.nn.Sequential = torch.nn.Module = torch.Tensor = object
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.nn", torch.nn)
    spec = importlib.util.spec_from_file_location("pytorch_heads", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_example_writes_can_be_built(example: Any, tmp_path: Path) -> None:
    example.PICTURES = 1
    example.write_pictures(tmp_path)
    example.write_settings(tmp_path)
    config = BuildConfig.from_toml(tmp_path / "heads.toml")
    assert {head.name: head.labels for head in config.heads} == example.TASKS
    assert [head.preprocessing for head in config.heads] == [PREPROCESSING["torch"]] * 3
    assert [head.model for head in config.heads] == [tmp_path / f"{task}.tflite" for task in example.TASKS]
    for task, labels in example.TASKS.items():
        assert {place.name for place in (tmp_path / "pictures" / task).iterdir()} == set(labels)
