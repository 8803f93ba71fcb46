"""Fixtures of the builder's environment. Also loaded for ``tests/device``, where there is no TensorFlow: import late."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from builder import BuildResult


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """One file with the three heads of ``tiny_models.THREE_HEADS``, built once. Read it; never write to its folder."""
    from tests.tiny_models import build_tiny

    return build_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_file(tiny: BuildResult) -> Path:
    """The ``.tflite`` of ``tiny``."""
    return tiny.output


@pytest.fixture(scope="session")
def tiny_pictures(tiny: BuildResult) -> list[Path]:
    """The pictures that ``tiny`` was built with, in a fixed order."""
    return sorted(p for p in (tiny.output.parent / "pictures").rglob("*") if p.is_file())
