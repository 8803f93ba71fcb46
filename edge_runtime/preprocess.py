"""A picture becomes the backbone's input tensor. Calibration and the device both go through here."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from typing import IO, Any, Iterator, Tuple, Union

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from edge_runtime.errors import PictureError
from edge_runtime.files import open_file
from edge_runtime.image_input import ImageInput

MAX_PIXELS = 89_478_485  # a quarter of a gigabyte of RGB; Pillow's own threshold for a decompression bomb
# What is opened, whatever a file is called, by Pillow's names. Pillow decodes forty more formats, PostScript among them.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",), "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"), "PPM": (".ppm",),
}  # fmt: skip
PICTURE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "area": 4}  # the numbers of Pillow's filters
_BILINEAR = 2
_ORIENTATION = 0x0112  # the EXIF tag; which of Pillow's transpositions makes each of its values upright:
_UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}

Picture = Union[str, "os.PathLike[str]", bytes, Image.Image, np.ndarray]


def image_tensor(picture: Picture, spec: ImageInput) -> np.ndarray:
    """``picture`` as uint8 of ``spec.shape``: RGB, or greyscale by Pillow's weights of the three (ITU-R 601).

    ``picture``: a path, the bytes of a picture file, a PIL image, or uint8 (height, width, 3) RGB; where ``spec`` is
    greyscale also (height, width) or (height, width, 1). Raises ``PictureError``.
    """
    if isinstance(picture, bytes):
        return stored_tensor(picture, spec)
    if not isinstance(picture, (np.ndarray, Image.Image)):
        return _file_tensor(os.fspath(picture), spec)
    if isinstance(picture, np.ndarray) and picture.shape == spec.shape[1:] and picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)[None]
    with _picture_errors("the picture"):
        image = _from_array(picture, spec) if isinstance(picture, np.ndarray) else _plain(picture, spec, "the picture")
        return _fit(image, spec)[None]


def stored_tensor(data: bytes, spec: ImageInput, *, name: str = "the picture") -> np.ndarray:
    """The same for the bytes of a picture file, bit for bit as from its path. Raises ``PictureError``."""
    with _picture_errors(name), _opened(io.BytesIO(data)) as image:
        return _fit(_decoded(image, spec, name, margin=2), spec)[None]


def encoded_tensor(data: bytes, spec: ImageInput, *, name: str = "the picture") -> np.ndarray:
    """The same for a frame that a camera sent as a JPEG: decoded at 1/2, 1/4 or 1/8 where that still covers ``spec``.

    Closer than a file is (twice the size is kept there): a live frame is decoded many times a second. Raises
    ``PictureError`` that begins with ``name``.
    """
    with _picture_errors(name), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return _fit(_decoded(image, spec, name, margin=1), spec)[None]


def picture_of(array: np.ndarray) -> Image.Image:
    """A PIL image of uint8 (height, width, 3) RGB, or greyscale (height, width) or (height, width, 1)."""
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))


def _from_array(array: np.ndarray, spec: ImageInput) -> Image.Image:
    grey = spec.color == "L" and (array.ndim == 2 or array.shape[2:] == (1,))
    if array.dtype != np.uint8 or not (array.shape[2:] == (3,) or grey) or 0 in array.shape:
        raise PictureError(
            f"expected an array of uint8 (height, width, 3) in RGB order{' or (height, width)' * (spec.color == 'L')}, "
            f"found {array.dtype} {array.shape}"
        )
    image = picture_of(array)
    return image if image.mode == spec.color else image.convert(spec.color)


def _file_tensor(path: str, spec: ImageInput) -> np.ndarray:
    with _picture_errors(path), open_file(path) as file, _opened(file) as image:
        # Twice the size is kept for the filter to do the rest.
        return _fit(_decoded(image, spec, path, margin=2), spec)[None]


def _opened(file: IO[bytes]) -> Image.Image:
    """``Image.open`` with ``FORMATS``. A JPEG, as most are, skips it: it imports the decoders of four formats besides."""
    if file.read(3) == b"\xff\xd8\xff":
        file.seek(0)
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # for ``Image.open``, it is no JPEG
            return JpegImagePlugin.JpegImageFile(file)
    return Image.open(file, formats=tuple(FORMATS))


def _decoded(image: Image.Image, spec: ImageInput, name: str, *, margin: int) -> Image.Image:
    """``_plain``; a JPEG decodes at 1/2, 1/4 or 1/8, but to no side below ``margin`` times what ``spec`` needs."""
    _check_size(image, name, 2 * MAX_PIXELS)  # as ``Image.open`` does; what decoding takes goes by the whole picture
    if spec.antialias and spec.method != "nearest":
        side = margin * max(spec.width, spec.height)  # the picture may yet be turned by a quarter
        image.draft(spec.color, (side, side))
    return _plain(image, spec, name)


@contextlib.contextmanager
def _picture_errors(name: str) -> Iterator[None]:
    """Whatever is raised inside becomes a ``PictureError`` of one line that begins with ``name``.

    Pillow's decoders raise anything on files that are not what they say: there is no list to rely on.
    """
    try:
        yield
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"{name}: {error}: too large to open safely; make it smaller") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: expected a picture ({', '.join(FORMATS)}), found something else") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # the file, not its content: keep the system's words
            raise PictureError(f"{name}: {error.strerror}") from error
        reason = " ".join(str(error).split())
        raise PictureError(f"{name}: expected a picture, found something unreadable ({reason})") from error


def _plain(image: Image.Image, spec: ImageInput, name: str) -> Image.Image:
    """Upright, 8 bits, in the colours of ``spec``; what is transparent shows white."""
    _check_size(image, name, MAX_PIXELS)
    image = _upright(image)
    if image.mode == "F":
        raise PictureError(f"{name}: expected 8 or 16 bits a channel, found floating point; save it as PNG or JPEG")
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        ground.alpha_composite(image)
        image = ground
    return image.convert(spec.color)


def _check_size(image: Image.Image, name: str, most: int) -> None:
    if image.size[0] * image.size[1] > most:
        raise PictureError(f"{name}: {image.size[0]} x {image.size[1]} pixels, too large to open safely; make it smaller")


def _upright(image: Image.Image) -> Image.Image:
    """Turned and mirrored as its EXIF says; EXIF that cannot be read says nothing, and is no reason to refuse."""
    image.load()  # first: Pillow turns a TIFF itself here, and then takes the tag away
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - see _picture_errors
        return image
    if orientation not in _UPRIGHT:
        return image
    transposition: Any = _UPRIGHT[orientation]
    return image.transpose(transposition)


def _box(size: Tuple[int, int], spec: ImageInput) -> Tuple[float, float, float, float]:
    """The part (left, upper, right, lower) of a picture of ``size`` (width, height) that is kept."""
    width, height = size
    if spec.fit != "crop":
        return 0, 0, width, height
    # Integers up to the last step: a box that ends beyond the picture by rounding is refused by Pillow.
    wide, high = width * spec.height, height * spec.width
    if wide >= high:
        left = (wide - high) / (2 * spec.height)
        return left, 0, width - left, height
    upper = (high - wide) / (2 * spec.width)
    return 0, upper, width, height - upper


def _fit(image: Image.Image, spec: ImageInput) -> np.ndarray:
    """uint8 of ``spec.shape``, without the batch axis."""
    target, ground = (spec.width, spec.height), None
    if spec.fit == "pad":
        ground = Image.new(spec.color, target)
        scale = min(spec.width / image.size[0], spec.height / image.size[1])
        target = (max(1, round(image.size[0] * scale)), max(1, round(image.size[1] * scale)))
    box = _box(image.size, spec)
    if image.size != target or box != (0, 0, *target):
        image = _resize(image, target, box, spec)
    if ground is not None:
        ground.paste(image, ((spec.width - target[0]) // 2, (spec.height - target[1]) // 2))
        image = ground
    return np.asarray(image).reshape(spec.shape[1:])


def _resize(
    image: Image.Image, target: Tuple[int, int], box: Tuple[float, float, float, float], spec: ImageInput
) -> Image.Image:
    if spec.antialias or spec.method in ("nearest", "area"):
        resample: Any = _FILTERS[spec.method]
        return image.resize(target, resample, box)
    # Without antialiasing only the pixels nearest to each sample count, as in tf.image.resize: so does an affine
    # transform.
    left, upper, right, lower = box
    matrix = ((right - left) / target[0], 0, left, 0, (lower - upper) / target[1], upper)
    affine: Any = 0
    sampling: Any = _FILTERS["bicubic"] if spec.method == "bicubic" else _BILINEAR
    return image.transform(target, affine, matrix, sampling)
