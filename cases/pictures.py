"""Reading pictures from files, strictly: whatever is changed on the way is said, whatever cannot be read is refused."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torch.nn import functional

from ..files import whole

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Files of a folder that count as pictures."""
MOST_PIXELS = 64_000_000
"""More than any camera in a telephone gives; beyond it a small file could fill the memory."""
MOST_ELONGATED = 8
"""The longer side over the shorter."""
MOST_AT_ONCE = 4_200_000
"""Pixels that go through a model at once: 2048 x 2048 and a little."""

TRANSPARENT = "its transparency is laid on white"
"""What is said of a picture that has any."""

_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0x0100, 0x0101
_ON_ITS_SIDE = range(5, 9)
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


@dataclass(frozen=True)
class Picture:
    """Pixels (3, H, W), float32 in [0, 1], and what was done to the file's content to get them, one clause each."""

    pixels: Tensor
    notes: tuple[str, ...] = ()


def read(path: Path) -> Picture:
    """The picture in a file: turned as its EXIF data say, 16 bits scaled, transparency laid on white, first frame only.

    Raises ValueError (one sentence) if there is no such file, if it is no picture, if it is cut short, or if it is
    larger than MOST_PIXELS or more elongated than MOST_ELONGATED to 1.
    """
    with _unwarned(), _opened(path) as image:
        return of_image(image, repr(str(path)))


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of the picture that `read` gives, from what the file says before its pixels. Raises ValueError as `read`
    does, but for what only the pixels tell."""
    with _unwarned(), _opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):
            width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]  # Pillow's own size is turned in some of its versions
        _bounded(repr(str(path)), width, height)
        try:
            orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)  # PNG's own getexif reads all pixels first
        except _BROKEN as fault:
            raise ValueError(f"{str(path)!r} is cut short or damaged ({fault})") from None
    return (width, height) if orientation in _ON_ITS_SIDE else (height, width)


def of_image(image: Image.Image, name: str = "the picture") -> Picture:
    """The same of an image that is open already, called `name` in what is said of it. The image itself is left as it is."""
    _bounded(name, *image.size)
    return _loaded(name, image)


@contextmanager
def _unwarned() -> Iterator[None]:
    """Pillow warns of large files; the limits here are ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _opened(path: Path) -> ImageFile.ImageFile:
    if not path.exists():
        raise ValueError(f"there is no file {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is not a file; give a picture")
    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} is empty (0 bytes); give a picture")
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        raise ValueError(f"{str(path)!r} is no picture; PNG, JPEG, WebP, BMP, TIFF and GIF files can be read") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{str(path)!r} has far more pixels than the {MOST_PIXELS:,} that are read; make it smaller") from None
    except PermissionError:
        raise
    except _BROKEN as fault:
        raise ValueError(f"{str(path)!r} is damaged and cannot be read ({fault})") from None


def _bounded(name: str, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{name} is {width}x{height}; at most {MOST_PIXELS:,} pixels are read, make it smaller")
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise ValueError(f"{name} is {width}x{height}; a side may be at most {MOST_ELONGATED} times the other, crop it")


def _loaded(name: str, image: Image.Image) -> Picture:
    notes = []
    opened = image.tile if isinstance(image, ImageFile.ImageFile) else []
    deep = any(";16" in str(tile[3]) for tile in opened)  # Pillow reads 16-bit colour as 8-bit by itself
    try:
        frames = getattr(image, "n_frames", 1)  # Pillow has the attribute only on formats that can hold several
        orientation = image.getexif().get(_ORIENTATION, 1)
        image.load()
        upright = ImageOps.exif_transpose(image)
    except _BROKEN as fault:
        raise ValueError(f"{name} is cut short or damaged ({fault})") from None
    if frames > 1:
        notes.append(f"has {frames} frames, the first is used")
    if orientation in range(2, 9):
        notes.append("turned upright as its EXIF data say")
    if deep and not upright.mode.startswith("I"):
        notes.append("16 bits a channel scaled to 8")
    pixels, said = _pixels(name, upright)
    return Picture(pixels, (*notes, *said))


def _pixels(name: str, image: Image.Image) -> tuple[Tensor, tuple[str, ...]]:
    """(3, H, W) in [0, 1] and what was done, for every mode that Pillow knows and that has a meaning on a screen."""
    if image.mode.startswith("I"):
        return _grey(name, image)
    if image.mode in ("F", "LAB"):
        raise ValueError(f"{name} is stored as {image.mode}, which has no agreed range; save it as PNG or JPEG")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        page = Image.new("RGBA", layered.size, "white")
        said = () if layered.getchannel("A").getextrema() == (255, 255) else (TRANSPARENT,)
        return _tensor(Image.alpha_composite(page, layered).convert("RGB")), said
    said = ("converted from CMYK to RGB without a colour profile",) if image.mode == "CMYK" else ()
    return _tensor(image.convert("RGB")), said


def _grey(name: str, image: Image.Image) -> tuple[Tensor, tuple[str, ...]]:
    values = np.asarray(image).astype(np.float64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{name} holds whole numbers beyond 16 bits; save it as an 8-bit or 16-bit picture")
    grey = torch.from_numpy((values / 65535.0).astype(np.float32))
    return grey.expand(3, *grey.shape).contiguous(), ("16-bit greyscale scaled to [0, 1]",)


def _tensor(image: Image.Image) -> Tensor:
    values = np.asarray(image, dtype=np.float32) / np.float32(255.0)
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def fitted(picture: Picture, multiple: int, side: int = 0, square: bool = False, mode: str = "bicubic") -> Picture:
    """The picture in a size that a model takes.

    With `side` its shorter side is resized to that; then the middle is cut out: with `square` the square of `side` pixels, else
    the largest part whose sides are multiples of `multiple`. `mode` of resizing: "bilinear" for masks, which then stay 0 and 1
    away from their edges.
    Raises ValueError (one sentence) if a side has fewer pixels than `multiple`, or if there are too many in all.
    """
    height, width = picture.pixels.shape[1:]
    height, width = fitted_size(height, width, multiple, side, square)
    return _cropped(_resized(picture, side, mode) if side else picture, height, width)


def fitted_size(height: int, width: int, multiple: int, side: int = 0, square: bool = False) -> tuple[int, int]:
    """(height, width) of what `fitted` makes of a picture of that size. Raises ValueError as it does."""
    if min(height, width) < multiple:
        raise ValueError(f"the picture is {width}x{height}; this model needs at least {multiple} pixels on each side")
    if side and side < multiple:
        raise ValueError(f"this model needs at least {multiple} pixels on each side, got the side {side}")
    if side:
        height, width = _scaled(height, width, side)
    if height * width > MOST_AT_ONCE:
        raise ValueError(f"the picture is {width}x{height}, too much for one go; resize it on the way in with --side 1024")
    return (side, side) if square else (height - height % multiple, width - width % multiple)


def _resized(picture: Picture, side: int, mode: str) -> Picture:
    height, width = picture.pixels.shape[1:]
    size = _scaled(height, width, side)
    if size == (height, width):
        return picture
    pixels = functional.interpolate(picture.pixels[None], size, mode=mode, antialias=True)[0].clamp(0.0, 1.0)
    return Picture(pixels, (*picture.notes, f"resized from {width}x{height} to {size[1]}x{size[0]}"))


def _scaled(height: int, width: int, side: int) -> tuple[int, int]:
    """The size with its shorter side at `side`."""
    scale = side / min(height, width)
    return max(side, round(height * scale)), max(side, round(width * scale))


def _cropped(picture: Picture, height: int, width: int) -> Picture:
    tall, wide = picture.pixels.shape[1:]
    if (tall, wide) == (height, width):
        return picture
    top, left = (tall - height) // 2, (wide - width) // 2
    pixels = picture.pixels[:, top : top + height, left : left + width].contiguous()
    return Picture(pixels, (*picture.notes, f"the middle {width}x{height} of {wide}x{tall} is used"))


def write(pixels: Tensor, path: Path) -> None:
    """Write (3, H, W) in [0, 1] as an 8-bit PNG: the whole file or none. Raises OSError if the folder cannot be written."""
    put(to_image(pixels), path)


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as an 8-bit Pillow image."""
    values = (pixels.detach().float().cpu().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).numpy())


def put(image: Image.Image, path: Path) -> None:
    """Write an image as PNG, the whole file or none. Raises OSError if the folder cannot be written."""
    with whole(path) as file:
        image.save(file, format="PNG")
