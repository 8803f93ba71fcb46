"""Pictures for the tests, and the folder of the files that ``tests.device_files`` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path("build/device-files")


def pictures(folder: Path, count: int) -> list[Path]:
    """Write seeded pictures of noise into sub-folders."""
    rng, found = np.random.default_rng(3), []
    for i in range(count):
        path = folder / f"{i % 3}" / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
        found.append(path)
    return sorted(found)
