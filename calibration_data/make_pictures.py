"""Compose the demo pictures: photographic cut-outs ("stamps") pasted on photographs ("backdrops").

    python calibration_data/make_pictures.py SOURCE

SOURCE holds `stamps/<task>/<class>/*.webp` and `backdrops/*.webp`. Every random choice for a stamp comes from
the hash of its own bytes, and its side of the split from the hash of its own name: another stamp more or less
changes no other picture.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

TASKS = ("animals", "garden", "things")
SIZES = ((224, 224), (240, 208), (208, 240))  # width, height; the backbone sees 224 x 224
JPEG = {"quality": 52, "subsampling": "4:2:0", "optimize": True}  # everything together stays near 3 MB
SCALES = (0.65, 0.98)  # of the largest size at which the stamp still fits into the picture
CROPS = (0.4, 1.0)  # of the largest part of a backdrop that has the picture's shape
DEGREES = 15.0
# Pictures of one stamp. `things` gain from a third, the others do not (cross-validation on training stamps).
TRAINING_VARIANTS = {"animals": 2, "garden": 2, "things": 3}
HELD_OUT_VARIANTS = 2

HELD_OUT_SHARE = 0.3
SPLIT_SALT = 1467  # the first of 3000 that brings every class nearest to that share; chosen by those counts alone

TRAINING_BACKDROPS = (
    "aqua", "blinds", "dune", "freshflower", "greenmeadow", "storm", "twowings", "yellowflower",
)  # fmt: skip
HELD_OUT_BACKDROPS = ("garden", "ladybird", "raindrops", "wood")
# A backdrop that shows something of a task's own classes would make the label wrong.
UNFIT_BACKDROPS = {
    "animals": {"ladybird"},
    "garden": {"freshflower", "garden", "ladybird", "twowings", "yellowflower"},
    "things": set(),
}
LETTERED = {"coin", "roadsign"}  # never mirrored: there is writing on them
NOT_PICTURES = {
    "sedan_police",
    "sedan_police_mirror",
}  # stickers for another stamp: no vehicle to be seen on them


@dataclass(frozen=True)
class Stamp:
    """One cut-out: `label` is its class, `name` its file name without the ending."""

    path: Path
    task: str
    label: str

    @property
    def name(self) -> str:
        return self.path.stem


def kind(stamp: Stamp) -> str:
    """What stays on one side of the split together: `guitar2` and `guitar_electric` are both `guitar`.

    It is the first word of the name, without a number or a plural s. Where that only repeats the class, as in
    `flower/flower7`, or where there is none, as in `coin/005`, the name stands for itself.
    """
    word = re.match(r"[a-z]*", stamp.name.lower())[0].rstrip("s")
    return stamp.name.lower() if word in ("", stamp.label) else word


def is_held_out(stamp: Stamp) -> bool:
    digest = hashlib.sha256(f"{SPLIT_SALT}/{stamp.task}/{stamp.label}/{kind(stamp)}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE


def find_stamps(source: Path) -> list[Stamp]:
    paths = [path for task in TASKS for path in sorted((source / "stamps" / task).glob("*/*.webp"))]
    return [Stamp(path, path.parts[-3], path.parts[-2]) for path in paths if path.stem not in NOT_PICTURES]


def crop_backdrop(backdrop: Image.Image, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A random crop of a random size with the picture's aspect ratio, scaled to `size` (width, height)."""
    largest = min(backdrop.width / size[0], backdrop.height / size[1])
    scale = largest * random.uniform(*CROPS)
    width, height = scale * size[0], scale * size[1]
    left, top = random.uniform(0, backdrop.width - width), random.uniform(0, backdrop.height - height)
    return backdrop.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def vary(stamp: Image.Image, *, may_mirror: bool, random: np.random.Generator) -> Image.Image:
    """Turn a little and perhaps mirror; the result is cut down to what is not transparent."""
    mirrored = random.random() < 0.5
    stamp = ImageOps.mirror(stamp) if may_mirror and mirrored else stamp
    turned = stamp.rotate(random.uniform(-DEGREES, DEGREES), Image.Resampling.BICUBIC, expand=True)
    return turned.crop(turned.getchannel("A").getbbox())


def compose(stamp: Image.Image, backdrop: Image.Image, *, may_mirror: bool, random: np.random.Generator) -> Image.Image:
    """One RGB picture of one of `SIZES`: the RGBA stamp somewhere on the RGB backdrop."""
    picture = crop_backdrop(backdrop, SIZES[random.integers(len(SIZES))], random)
    stamp = vary(stamp, may_mirror=may_mirror, random=random)
    scale = random.uniform(*SCALES) * min(picture.width / stamp.width, picture.height / stamp.height)
    size = (max(1, round(stamp.width * scale)), max(1, round(stamp.height * scale)))
    stamp = stamp.resize(size, Image.Resampling.BICUBIC)
    free = (picture.width - size[0], picture.height - size[1])
    picture.paste(stamp, tuple(int(random.integers(space + 1)) for space in free), stamp)
    return picture


def generator(content: bytes) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(content).digest(), "big"))


def pictures(stamp: Stamp, backdrops: dict[str, Image.Image]) -> Iterator[tuple[Path, Image.Image]]:
    """Every picture of one stamp with its path under the output folder."""
    held_out = is_held_out(stamp)
    content = stamp.path.read_bytes()
    names = HELD_OUT_BACKDROPS if held_out else TRAINING_BACKDROPS
    names = [name for name in names if name not in UNFIT_BACKDROPS[stamp.task]]
    folder = Path("held_out", stamp.task, stamp.label) if held_out else Path(stamp.task, stamp.label)
    with Image.open(stamp.path) as opened:
        cut_out = opened.convert("RGBA")
    order = generator(content).permutation(len(names))  # each picture of a stamp gets another backdrop
    variants = HELD_OUT_VARIANTS if held_out else TRAINING_VARIANTS[stamp.task]
    for variant, place in enumerate(order[:variants], start=1):
        random = generator(content + bytes([variant]))
        backdrop = backdrops[names[place]]
        picture = compose(cut_out, backdrop, may_mirror=stamp.label not in LETTERED, random=random)
        yield folder / f"{stamp.name}__{variant}.jpg", picture


def load_backdrops(source: Path) -> dict[str, Image.Image]:
    paths = {name: source / "backdrops" / f"{name}.webp" for name in TRAINING_BACKDROPS + HELD_OUT_BACKDROPS}
    return {name: Image.open(path).convert("RGB") for name, path in paths.items()}


def make_pictures(source: Path, output: Path) -> int:
    """Replace the pictures in `output`, all of them or none; return how many there are now."""
    stamps = find_stamps(source)
    if {stamp.task for stamp in stamps} != set(TASKS):
        raise FileNotFoundError(f"expected stamps/<task>/<class>/*.webp for each of {', '.join(TASKS)} in {source}")
    backdrops = load_backdrops(source)
    count = 0
    with tempfile.TemporaryDirectory(dir=output, prefix=".making-") as made:
        for name in (*TASKS, "held_out"):
            Path(made, name).mkdir()
        for stamp in stamps:
            for path, picture in pictures(stamp, backdrops):
                target = Path(made, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                picture.save(target, **JPEG)
                count += 1
        for name in (*TASKS, "held_out"):
            shutil.rmtree(output / name, ignore_errors=True)
            Path(made, name).rename(output / name)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description="Compose the demo pictures from stamps and backdrops.")
    parser.add_argument("source", type=Path, help="folder with stamps/ and backdrops/")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="default: beside this script")
    arguments = parser.parse_args()
    try:
        count = make_pictures(arguments.source, arguments.output)
    except OSError as error:
        print(f"make_pictures: {error}", file=sys.stderr)
        return 2
    print(f"{count} pictures in {arguments.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
