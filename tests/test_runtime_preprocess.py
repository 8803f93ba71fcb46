"""Any picture file becomes uint8 (1, height, width, 3) RGB, or is refused in one line."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_runtime import PictureError
from edge_runtime.image_input import RESIZE_FITS, RESIZE_METHODS, ImageInput
from edge_runtime.preprocess import FORMATS, MAX_PIXELS, PICTURE_SUFFIXES, _box, encoded_tensor, image_tensor
from tests.laws import one_line
from tests.tiny_models import tiny_picture

SPEC = ImageInput(32, 32)
WIDE = ImageInput(20, 40)
GREY = ImageInput(8, 8, color="L")
ORIENTATION = 0x0112


def saved(folder: Path, image: Image.Image, suffix: str = ".png", **options: Any) -> Path:
    path = folder / f"picture{suffix}"
    image.save(path, **options)
    return path


def plain(colour: Any, mode: str = "RGB", size: tuple[int, int] = (50, 40)) -> Image.Image:
    return Image.new(mode, size, colour)


# What a picture of one colour must become, by how it was stored.
PALETTE = plain((200, 10, 60)).quantize(4)
KINDS = {
    "RGB png": (plain((200, 10, 60)), ".png", {}, (200, 10, 60)),
    "RGB bmp": (plain((200, 10, 60)), ".bmp", {}, (200, 10, 60)),
    "RGB tiff": (plain((200, 10, 60)), ".tif", {}, (200, 10, 60)),
    "RGB with a colour that is transparent": (plain((1, 2, 3)), ".png", {"transparency": (1, 2, 3)}, (255, 255, 255)),
    "RGB with another colour transparent": (plain((1, 2, 3)), ".png", {"transparency": (9, 9, 9)}, (1, 2, 3)),
    "grey": (plain(77, "L"), ".png", {}, (77, 77, 77)),
    "grey jpeg": (plain(77, "L"), ".jpg", {}, (77, 77, 77)),
    "black and white": (plain(1, "1"), ".png", {}, (255, 255, 255)),
    "palette": (PALETTE, ".png", {}, (200, 10, 60)),
    "palette gif": (PALETTE, ".gif", {}, (200, 10, 60)),
    "palette, this entry transparent": (PALETTE, ".png", {"transparency": PALETTE.getpixel((0, 0))}, (255, 255, 255)),
    "palette, another entry transparent": (PALETTE, ".png", {"transparency": 3}, (200, 10, 60)),
    "grey and opaque": (plain((77, 255), "LA"), ".png", {}, (77, 77, 77)),
    "grey and transparent": (plain((77, 0), "LA"), ".png", {}, (255, 255, 255)),
    "RGBA opaque": (plain((200, 10, 60, 255), "RGBA"), ".png", {}, (200, 10, 60)),
    "RGBA transparent": (plain((200, 10, 60, 0), "RGBA"), ".png", {}, (255, 255, 255)),
    "RGBA half": (plain((200, 10, 60, 128), "RGBA"), ".png", {}, (227, 132, 157)),
    "RGBA webp": (plain((200, 10, 60, 0), "RGBA"), ".webp", {"lossless": True}, (255, 255, 255)),
    "CMYK tiff": (plain((0, 255, 255, 0), "CMYK"), ".tif", {}, (255, 0, 0)),
    "16 bits": (Image.fromarray(np.full((40, 50), 0xABCD, np.uint16)), ".png", {}, (0xAB,) * 3),
    "16 bits, dark": (Image.fromarray(np.full((40, 50), 0x00FF, np.uint16)), ".png", {}, (0, 0, 0)),
    "16 bits, white": (Image.fromarray(np.full((40, 50), 0xFFFF, np.uint16)), ".png", {}, (255, 255, 255)),
    "32 bits tiff": (Image.fromarray(np.full((40, 50), 0x12345, np.int32)), ".tif", {}, (255, 255, 255)),
    "16 bits tiff": (Image.fromarray(np.full((40, 50), 0xABCD, np.uint16)), ".tif", {}, (0xAB,) * 3),
}


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_picture(tmp_path: Path, kind: str, fit: str) -> None:
    image, suffix, options, colour = KINDS[kind]
    found = image_tensor(saved(tmp_path, image, suffix, **options), replace(SPEC, fit=fit))
    assert (found.shape, found.dtype) == ((1, 32, 32, 3), np.uint8)
    assert np.abs(found.astype(int) - colour).max() <= 1


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    found = image_tensor(saved(tmp_path, plain((0, 255, 255, 0), "CMYK"), ".jpg", quality=95), SPEC)
    assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 8


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Stored so that the tag is right, every orientation shows the same four corners."""
    upright = np.zeros((32, 64, 3), np.uint8)  # corners: red green / blue white
    upright[:16, :32], upright[:16, 32:], upright[16:, :32], upright[16:, 32:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
    # How a camera held so stores it (EXIF 2.3, 4.6.4: where row 0 and column 0 of what is stored lie in the scene).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, Image.fromarray(stored), suffix, exif=exif, quality=95)
    found = image_tensor(path, ImageInput(32, 64))[0].astype(int)
    assert np.abs(found[4:12, 4:28] - upright[8, 8]).max() < 30
    assert np.abs(found[4:12, 36:60] - upright[8, 40]).max() < 30
    assert np.abs(found[20:28, 4:28] - upright[24, 8]).max() < 30
    with Image.open(path) as image:  # the image that Pillow opened goes the same way as the path
        np.testing.assert_array_equal(image_tensor(image, ImageInput(32, 64))[0], found)


@pytest.mark.parametrize("value", [0, 9, 255, 6.0, "6"])
def test_strange_orientations_are_no_reason_to_refuse(tmp_path: Path, value: Any) -> None:
    image = plain((200, 10, 60))
    image.getexif()[ORIENTATION] = value
    np.testing.assert_array_equal(image_tensor(image, SPEC), image_tensor(plain((200, 10, 60)), SPEC))


@pytest.mark.parametrize(
    "damage", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 30]
)
def test_damaged_exif_is_no_reason_to_refuse(tmp_path: Path, damage: bytes) -> None:
    path = saved(tmp_path, plain((200, 10, 60)), ".jpg", exif=damage, quality=95)
    assert np.abs(image_tensor(path, SPEC).astype(int) - (200, 10, 60)).max() <= 4


@pytest.mark.parametrize("fit", RESIZE_FITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (31, 33), (33, 31)])
@pytest.mark.parametrize("method", RESIZE_METHODS)
@pytest.mark.parametrize("antialias", [True, False])
def test_any_size_works(size: tuple[int, int], fit: str, method: str, antialias: bool) -> None:
    spec = ImageInput(20, 40, method=method, fit=fit, antialias=antialias)
    found = image_tensor(plain((9, 90, 190), size=size), spec)
    assert (found.shape, found.dtype) == ((1, 20, 40, 3), np.uint8)
    pixels = found.reshape(-1, 3)
    black = (pixels == 0).all(1)
    assert np.abs(pixels[~black].astype(int) - (9, 90, 190)).max() <= 1  # one colour stays one
    assert not black.all()
    assert fit == "pad" or not black.any()


@pytest.mark.parametrize("spec", [SPEC, WIDE, ImageInput(40, 20)], ids=lambda s: f"{s.width}x{s.height}")
@pytest.mark.parametrize("fit", RESIZE_FITS)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_a_picture_of_the_right_size_passes_unchanged(spec: ImageInput, fit: str, antialias: bool, method: str) -> None:
    spec = replace(spec, fit=fit, antialias=antialias, method=method)
    pixels = np.random.default_rng(0).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    for picture in (pixels, Image.fromarray(pixels)):
        np.testing.assert_array_equal(image_tensor(picture, spec)[0], pixels)


def test_the_tensor_does_not_change_with_the_picture() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    found = image_tensor(pixels[:, ::-1], SPEC)  # neither need an array be contiguous ...
    assert found.flags.c_contiguous  # as interpreters want it
    read_only = np.zeros((64, 64, 3), np.uint8)
    read_only.setflags(write=False)
    image_tensor(read_only, SPEC)  # ... nor writable


@pytest.mark.parametrize(("width", "height"), [(96, 32), (32, 96), (200, 100), (100, 201)])
def test_crop_keeps_the_centred_part(width: int, height: int) -> None:
    """Cropping is stretching of what was cut out by hand."""
    picture = tiny_picture(3, (width, height))
    side = min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    by_hand = picture.resize((32, 32), Image.Resampling.BILINEAR, (left, upper, left + side, upper + side))
    np.testing.assert_array_equal(image_tensor(picture, replace(SPEC, fit="crop"))[0], np.asarray(by_hand))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_crop_of_a_centred_square_sees_nothing_else(method: str, *, antialias: bool) -> None:
    square = np.asarray(tiny_picture(4, (32, 32)))
    for around in ((0, 32), (32, 0)):
        pixels = np.pad(square, [(n, n) for n in (*around, 0)], constant_values=255)
        found = image_tensor(pixels, replace(SPEC, fit="crop", method=method, antialias=antialias))
        np.testing.assert_array_equal(found[0], square)


SIDES = (1, 2, 49, 96, 107, 160, 180, 224, 240, 299, 320, 331, 384, 512)  # of models


def assert_box(width: int, height: int, spec: ImageInput) -> None:
    """The largest part of the picture with the model's aspect, in the middle, and not beyond it by the last bit."""
    left, upper, right, lower = _box((width, height), spec)
    assert 0 <= left < right <= width, (width, height, spec)
    assert 0 <= upper < lower <= height, (width, height, spec)
    assert (left, right) == (0, width) or (upper, lower) == (0, height)
    assert left == width - right or abs(left - (width - right)) < 1e-9
    assert upper == height - lower or abs(upper - (height - lower)) < 1e-9
    assert abs((right - left) * spec.height - (lower - upper) * spec.width) < 1e-6


@pytest.mark.parametrize("other", [1, 2, 700, 900, 4999])
def test_crop_never_leaves_the_picture_whatever_its_sides(other: int) -> None:
    for side in SIDES:
        spec = ImageInput(side, side, fit="crop")
        for length in range(1, 5001):
            assert_box(length, other, spec)
            assert_box(other, length, spec)


@given(*[st.integers(1, 5000)] * 2, *[st.integers(1, 1024)] * 2)
def test_crop_never_leaves_the_picture_whatever_the_model_takes(width: int, height: int, tall: int, wide: int) -> None:
    assert_box(width, height, ImageInput(tall, wide, fit="crop"))


SPECS = st.builds(
    ImageInput,
    st.sampled_from(SIDES),
    st.sampled_from(SIDES),
    method=st.sampled_from(RESIZE_METHODS),
    antialias=st.booleans(),
    fit=st.sampled_from(RESIZE_FITS),
)


@settings(max_examples=250, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), SPECS)
def test_pictures_of_any_sides_become_the_tensor_that_the_model_takes(one: int, other: int, spec: ImageInput) -> None:
    size = (one, min(other, 1 + 300_000 // one))  # so much of a picture that the test stays quick
    for sides in (size, size[::-1]):
        found = image_tensor(Image.new("RGB", sides, (9, 90, 190)), spec)
        assert (found.shape, found.dtype) == ((1, spec.height, spec.width, 3), np.uint8)


@pytest.mark.parametrize("size", [(900, 1200), (1200, 900), (1024, 768), (768, 1024), (1300, 955)])
@pytest.mark.parametrize("side", [224, 240, 299, 331])
def test_crop_of_what_cameras_give(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    spec = ImageInput(side, side, fit="crop")
    path = saved(tmp_path, plain((9, 90, 190), size=size), ".jpg", quality=95)
    for found in (image_tensor(path, spec), encoded_tensor(path.read_bytes(), spec)):
        assert np.abs(found.astype(int) - (9, 90, 190)).max() <= 4


@settings(max_examples=200, deadline=None)
@given(*[st.integers(1, 60)] * 2, *[st.integers(1, 40)] * 2)
def test_what_is_padded_lies_in_the_middle_and_an_odd_row_below_or_right(
    width: int, height: int, tall: int, wide: int
) -> None:
    found = image_tensor(plain((255, 255, 255), size=(width, height)), ImageInput(tall, wide, fit="pad"))[0]
    white = (found == 255).all(2)
    for lines, side in ((white.any(1), tall), (white.any(0), wide)):
        assert np.argmax(lines) == (side - lines.sum()) // 2


@pytest.mark.parametrize(("width", "height"), [(96, 32), (32, 96), (200, 100), (7, 70), (640, 480)])
def test_pad_keeps_the_aspect_and_adds_black(width: int, height: int) -> None:
    found = image_tensor(plain((255, 255, 255), size=(width, height)), replace(SPEC, fit="pad"))[0]
    white = (found == 255).all(2)
    rows, columns = white.any(1).sum(), white.any(0).sum()
    assert white.sum() == rows * columns, "the picture is a rectangle"
    assert ((found == 0).all(2) | white).all(), "and around it is black"
    assert max(rows, columns) == 32
    assert abs(columns / rows - width / height) <= max(width / height, 1) / min(rows, columns)
    above, left = np.argmax(white.any(1)), np.argmax(white.any(0))
    assert abs(above - (32 - rows - above)) <= 1, "centred"
    assert abs(left - (32 - columns - left)) <= 1


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_fits_agree_where_the_aspect_does(fit: str) -> None:
    picture = tiny_picture(5, (80, 80))
    np.testing.assert_array_equal(image_tensor(picture, replace(SPEC, fit=fit)), image_tensor(picture, SPEC))


def half_pixel_bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """As ``tf.image.resize(..., antialias=False)``: the two nearest pixels of each axis, sampled at pixel centres."""

    def axis(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = (np.arange(target) + 0.5) * size / target - 0.5
        low = np.floor(place).astype(int)
        return np.clip(low, 0, size - 1), np.clip(low + 1, 0, size - 1), place - low

    top, bottom, down = axis(pixels.shape[0], height)
    left, right, across = axis(pixels.shape[1], width)
    real, across = pixels.astype(np.float64), across[None, :, None]
    rows = [real[row][:, left] * (1 - across) + real[row][:, right] * across for row in (top, bottom)]
    return rows[0] * (1 - down[:, None, None]) + rows[1] * down[:, None, None]


@pytest.mark.parametrize(("width", "height"), [(640, 480), (64, 64), (33, 97), (32, 31), (12, 9), (1, 1), (1920, 3)])
def test_without_antialiasing_it_is_plain_bilinear(width: int, height: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    found = image_tensor(pixels, replace(WIDE, antialias=False))[0]
    assert np.abs(found - half_pixel_bilinear(pixels, WIDE.height, WIDE.width)).max() <= 1 + 1e-6


def test_antialiasing_matters() -> None:
    pixels = np.zeros((320, 320, 3), np.uint8)
    pixels[::2] = 255  # finer than the tensor can show: its mean is what should be left
    smooth, rough = (image_tensor(pixels[1:], replace(SPEC, antialias=a))[0] for a in (True, False))
    assert np.abs(smooth.astype(int) - 127).max() < 20
    assert np.ptp(rough) > 100


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".ppm"])
@pytest.mark.parametrize("size", [(50, 40), (450, 380)])  # a JPEG of these is decoded at a quarter of its size
def test_the_bytes_of_a_file_are_the_file(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    path = saved(tmp_path, Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)), suffix)
    np.testing.assert_array_equal(image_tensor(path.read_bytes(), WIDE), image_tensor(path, WIDE))
    with pytest.raises(PictureError, match="the picture"):
        image_tensor(path.read_bytes()[:40], WIDE)


def test_path_image_and_array_of_a_png_are_equal(tmp_path: Path) -> None:
    picture = tiny_picture(6, (130, 70))
    path = saved(tmp_path, picture)
    for fit in RESIZE_FITS:
        spec = replace(SPEC, fit=fit)
        expected = image_tensor(path, spec)
        for same in (str(path), picture, np.asarray(picture)):
            np.testing.assert_array_equal(image_tensor(same, spec), expected)


@pytest.mark.parametrize("size", [(640, 480), (1200, 300), (65, 2000)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_decoded_at_reduced_size_is_near_the_whole(
    tmp_path: Path, size: tuple[int, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, tiny_picture(7, size), ".jpg", quality=90, exif=exif)
    with Image.open(path) as image:
        whole = image_tensor(image, WIDE).astype(int)
    difference = np.abs(image_tensor(path, WIDE).astype(int) - whole)
    assert difference.mean() < 2
    assert difference.max() < 40


@pytest.mark.parametrize("spec", [WIDE, ImageInput(40, 20), SPEC], ids=lambda s: f"{s.width}x{s.height}")
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(1000, 700), (330, 321), (159, 200), (161, 2000), (81, 79), (41, 40), (39, 300)])
def test_a_jpeg_is_decoded_as_small_as_still_covers_the_model_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: ImageInput, orientation: int, size: tuple[int, int]
) -> None:
    """Twice the model's longer side of a file, once of a camera's frame; of the shorter side of the picture."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, tiny_picture(7, size), ".jpg", exif=exif)
    decoded: list[int] = []
    whole = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, *a: (decoded.append(min(self.size)), whole(self, *a))[1])
    for margin, read in ((2, lambda: image_tensor(path, spec)), (1, lambda: encoded_tensor(path.read_bytes(), spec))):
        needed = margin * max(spec.width, spec.height)
        read()
        smallest = max([part for part in (1, 2, 4, 8) if min(size) // part >= needed], default=1)
        assert decoded.pop() == -(-min(size) // smallest)


def test_without_antialiasing_a_jpeg_is_decoded_whole(tmp_path: Path) -> None:
    path = saved(tmp_path, tiny_picture(7, (640, 480)), ".jpg")
    with Image.open(path) as image:
        for spec in (replace(SPEC, antialias=False), replace(SPEC, method="nearest")):
            np.testing.assert_array_equal(image_tensor(path, spec), image_tensor(image, spec))


def png_header(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that claims to be large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 40)) + chunk(b"IEND", b"")


def jpeg(size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    tiny_picture(8, size).save(buffer, "JPEG")
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    tiny_picture(8, (64, 48)).save(buffer, "PNG")
    return buffer.getvalue()


BROKEN = {
    "empty.jpg": b"",
    "text.jpg": b"not a picture at all\n",
    "newlines.jpg": b"\n\n\n",
    "half.jpg": jpeg()[: len(jpeg()) // 2],
    "header.jpg": jpeg()[:20],
    "half.png": png()[: len(png()) // 2],
    "header.png": png()[:33],
    "signature.png": png()[:8],
    "damaged.png": png()[:60] + b"\0" * 20 + png()[80:],
    "huge.png": png_header(50_000, 50_000),
    "large.png": png_header(MAX_PIXELS // 9000 + 1, 9001),  # Pillow only warns of this one
    "flat.png": png_header(1, 2**31 - 1),
    "nothing.png": png_header(0, 5),
    "model.tflite": b"\x1c\0\0\0TFL3" + b"\0" * 100,
    "short.bmp": b"BM" + b"\0" * 30,
    "short.gif": b"GIF89a\1",
    "short.tif": b"II*\0\x08\0\0\0\xff\xff",
    "short.webp": b"RIFF\0\0\0\0WEBPVP8 ",
}


def test_a_jpeg_of_several_pictures_is_its_first_and_a_jpeg_needs_no_other_decoder(tmp_path: Path) -> None:
    first, second = (plain(colour) for colour in ((200, 10, 60), (0, 99, 9)))
    first.save(tmp_path / "several.jpg", "MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "one.jpg", "JPEG")
    several, one = (image_tensor(tmp_path / name, SPEC) for name in ("several.jpg", "one.jpg"))
    np.testing.assert_array_equal(several, one)
    program = (
        "import sys\nfrom edge_runtime.image_input import ImageInput\nfrom edge_runtime.preprocess import image_tensor\n"
        "image_tensor(sys.argv[1], ImageInput(32, 32))\nprint([m for m in sys.modules if 'Plugin' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "one.jpg"], capture_output=True, text=True, check=True
    )
    assert "JpegImagePlugin" in done.stdout
    assert "BmpImagePlugin" not in done.stdout


@pytest.mark.parametrize(("side", "large"), [(13_376, False), (13_378, True), (65_500, True)])
def test_a_jpeg_that_claims_to_be_large_is_refused_before_it_is_decoded(
    tmp_path: Path, side: int, *, large: bool
) -> None:
    """At an eighth of its size it would pass; what it takes to decode it goes by the whole."""
    data = jpeg()
    place = data.index(b"\xff\xc0") + 5  # where its frame says height and width
    claims = data[:place] + struct.pack(">HH", side, side) + data[place + 4 :]
    path = tmp_path / "large.jpg"
    path.write_bytes(claims[:-40])
    for read, picture in ((image_tensor, path), (image_tensor, path.read_bytes()), (encoded_tensor, path.read_bytes())):
        with pytest.raises(PictureError) as caught:
            read(picture, SPEC)
        assert ("too large to open safely" in str(caught.value)) == large, (read, str(caught.value))


def test_what_has_as_many_pixels_as_are_opened_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.preprocess.MAX_PIXELS", 50 * 40)
    for size, large in (((50, 40), False), ((40, 50), False), ((50, 41), True), ((2001, 1), True)):
        image = plain(7, "L", size)
        for picture in (image, saved(tmp_path, image), saved(tmp_path, image, ".bmp").read_bytes()):
            if large:
                with pytest.raises(PictureError, match="too large to open safely"):
                    image_tensor(picture, GREY)
            else:
                assert image_tensor(picture, GREY).shape == GREY.shape


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".eps", ""])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_documented_formats_are_read_whatever_a_file_is_called(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    plain((200, 10, 60)).save(path, kind)
    assert np.abs(image_tensor(path, SPEC).astype(int) - (200, 10, 60)).max() <= 8


@pytest.mark.parametrize("kind", ["EPS", "TGA", "ICO", "PCX", "SGI", "IM", "ICNS", "AVIF", "JPEG2000"])
def test_no_other_format_is_decoded_whatever_the_file_is_called(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.jpg"
    try:
        tiny_picture(1, (64, 64)).save(path, kind)
    except (KeyError, OSError, ValueError):
        pytest.skip(f"this Pillow does not write {kind}")
    with pytest.raises(PictureError, match="JPEG, PNG, WEBP, BMP, GIF, TIFF, PPM") as caught:
        image_tensor(path, SPEC)
    assert one_line(str(caught.value), path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_frame_that_a_camera_sent_is_a_jpeg_or_nothing(kind: str) -> None:
    buffer = io.BytesIO()
    tiny_picture(1, (64, 48)).save(buffer, kind)
    if kind == "JPEG":
        assert encoded_tensor(buffer.getvalue(), SPEC).shape == (1, 32, 32, 3)
        return
    with pytest.raises(PictureError, match="a frame: expected"):
        encoded_tensor(buffer.getvalue(), SPEC, name="a frame")


def test_every_suffix_belongs_to_a_format_and_every_format_has_one() -> None:
    Image.init()
    assert {Image.EXTENSION[suffix] for suffix in PICTURE_SUFFIXES} == set(FORMATS)


KINDS_OF_ERROR = (OSError, RuntimeError, ValueError, KeyError, TypeError, BufferError, UnicodeError, MemoryError)


@pytest.mark.parametrize("error", [*KINDS_OF_ERROR, NotImplementedError, RecursionError, ArithmeticError, StopIteration])
@pytest.mark.parametrize("step", ["load", "convert", "resize", "getexif"])
def test_whatever_a_decoder_raises_is_a_picture_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], step: str
) -> None:
    picture = tiny_picture(1, (64, 48))
    given = saved(tmp_path, picture, ".bmp"), picture, np.asarray(picture)

    def broken(*_: Any, **__: Any) -> None:
        raise error("line one\nline two")

    monkeypatch.setattr(Image.Image, step, broken)
    refused = 0
    for one in given:
        try:
            image_tensor(one, SPEC)
        except PictureError as found:
            refused += "\n" not in str(found)
    assert refused == {"load": 3, "resize": 3, "convert": 2, "getexif": 0}[step]


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("strict", [False, True])
def test_broken_files_are_refused_in_one_line(tmp_path: Path, name: str, strict: bool) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with warnings.catch_warnings(), pytest.raises(PictureError) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error" if strict else "ignore", Image.DecompressionBombWarning)
        image_tensor(path, SPEC)
    assert one_line(str(caught.value), path)
    assert "None" not in str(caught.value)


@pytest.mark.parametrize("name", ["huge.png", "large.png", "flat.png"])
def test_what_is_too_large_is_called_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(PictureError, match="too large to open safely"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image_tensor(path, SPEC)


@pytest.mark.parametrize(("name", "whole"), [("most.jpg", jpeg((640, 480))), ("most.png", png())])
def test_broken_files_are_refused_when_pillow_opened_them(tmp_path: Path, name: str, whole: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) * 3 // 4])  # opening reads the header only
    with Image.open(path) as image, pytest.raises(PictureError):
        image_tensor(image, SPEC)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    places = {tmp_path / "none.jpg": "No such file", tmp_path: "found a folder", tmp_path / "a\0b": "null byte"}
    for path, words in places.items():
        with pytest.raises(PictureError, match=words):
            image_tensor(path, SPEC)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    image = Image.new("F", (40, 40), 0.5)
    for picture in (image, saved(tmp_path, image, ".tif")):
        with pytest.raises(PictureError, match="floating point"):
            image_tensor(picture, SPEC)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((32, 32, 3), np.float32),
        np.zeros((40, 40, 3), np.float64),
        np.zeros((40, 40, 3), np.int8),
        np.zeros((40, 40, 3), np.uint16),
        np.zeros((40, 40, 3), bool),
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 1), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((3, 40, 40), np.uint8),
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
        np.zeros((40, 0, 3), np.uint8),
        np.zeros((0,), np.uint8),
        np.zeros((), np.uint8),
        np.zeros((40, 40, 3), object),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_wrong_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(PictureError, match=r"expected an array of uint8 \(height, width, 3\)") as caught:
        image_tensor(array, SPEC)
    assert str(array.dtype) in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 3, 1.5, ["a.jpg"]])
def test_what_is_no_picture_at_all_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError):
        image_tensor(wrong, SPEC)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_never_escapes_as_another_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([jpeg(), png()])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert image_tensor(path, SPEC).shape == (1, 32, 32, 3)
        except PictureError as error:
            assert one_line(str(error), path)
