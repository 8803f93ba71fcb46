"""Make the pictures of this folder again, from the packages that ``LICENCES.md`` names.

    python make_pictures.py SCIKIT_IMAGE/data SCIKIT_LEARN/datasets/images LOMIRI/usr/share/backgrounds

Six square crops of each photograph, 224 pixels wide: the middle, then places drawn from the hash of the file.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Photographs that show what few classifiers are for, and none that many are for: no animals, flowers or fruit.
NAMES = (
    "astronaut.png", "brick.png", "camera.png", "clock_motion.png", "coffee.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "rocket.jpg", "text.png", "china.jpg", "aitzgorri_by_Aitzol_Berasategi.jpg",
    "life_by_Aitzol_Berasategi.jpg", "picosdeeuropa_by_Aitzol_Berasategi.jpg", "Picture_1A_by_freespace.jpg",
    "sunset_by_Aitzol_Berasategi.jpg", "umang_by_Abhishek_Mudgal.jpg", "Wine_by_Jakkub_Mede.jpg",
)  # fmt: skip
SHARES = (1.0, 0.75, 0.55, 0.55, 0.4, 0.4)  # of the shorter side
SIZE, QUALITY = 224, 80


def crops(path: Path) -> list[Image.Image]:
    """Of one photograph, RGB, ``SIZE`` wide and high."""
    image = Image.open(path).convert("RGB")
    rng, found = np.random.default_rng(int(hashlib.sha256(path.read_bytes()).hexdigest()[:8], 16)), []
    for share in SHARES:
        side = int(min(image.size) * share)
        room = [edge - side for edge in image.size]
        left, top = (r // 2 if share == 1.0 else int(rng.integers(0, r + 1)) for r in room)
        found.append(image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    return found


if __name__ == "__main__":
    for name in NAMES:
        source = next(Path(folder) / name for folder in sys.argv[1:] if (Path(folder) / name).exists())
        for number, crop in enumerate(crops(source)):
            crop.save(Path(__file__).parent / f"{source.stem.split('_by_')[0].lower()}_{number}.jpg", quality=QUALITY)
