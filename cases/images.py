"""Pictures as people hold them in Python: files, Pillow images, arrays and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .pictures import Picture, of_image, read

AnyImage: TypeAlias = "str | Path | Image.Image | np.ndarray[Any, Any] | Tensor"
"""A file; a Pillow image; an array (H, W, 3) of uint8, or of floats in [0, 1]; a tensor (3, H, W) in [0, 1]."""


def picture_of(image: AnyImage) -> Picture:
    """The pixels of `image`, float32 (3, H, W) in [0, 1], with what was done to get them.
    Raises ValueError (one sentence) if it cannot be read, or is of another type, shape or range."""
    if isinstance(image, str | Path):
        return read(Path(image))
    if isinstance(image, Image.Image):
        return of_image(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return of_image(_uint8(image))
    if isinstance(image, np.ndarray):
        channels_last = torch.from_numpy(np.array(image))  # a copy: the array may be read-only
        return Picture(_checked(channels_last.movedim(-1, 0) if image.ndim == 3 else channels_last, image))
    if isinstance(image, Tensor):
        return Picture(_checked(image.detach(), image))
    raise ValueError(
        f"a picture is a file, a Pillow image, an array (H, W, 3) or a tensor (3, H, W); got {type(image).__name__}"
    )


def mask_of(image: AnyImage, pixels: Tensor) -> Picture:
    """A mask (1, H, W) in [0, 1] for a picture (3, H, W): how bright `image` is, white where the picture may change; brought
    to the picture's size. Raises ValueError (one sentence) if it cannot be read or is of another shape than the picture."""
    given = picture_of(image)
    mask, (height, width) = given.pixels.mean(0, keepdim=True), pixels.shape[1:]
    tall, wide = mask.shape[1:]
    said = tuple(f"the mask: {note}" for note in given.notes)
    if (tall, wide) == (height, width):
        return Picture(mask, said)
    if abs(wide * height - tall * width) > max(tall, wide, height, width):
        raise ValueError(f"the mask is {wide}x{tall} and the picture {width}x{height}; give a mask of the picture's shape")
    resized = functional.interpolate(mask[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0.0, 1.0)
    return Picture(
        resized,
        (
            *said,
            f"the mask is resized from {wide}x{tall} to {width}x{height}",
        ),
    )


def _uint8(image: np.ndarray[Any, Any]) -> Image.Image:
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4)):
        return Image.fromarray(image)
    raise ValueError(f"a picture as an array is (H, W, 3), got {image.shape}")


def _checked(pixels: Tensor, given: Any) -> Tensor:
    """(3, H, W) float32 on the CPU, held to shape and range."""
    if pixels.ndim != 3 or pixels.shape[0] != 3 or 0 in pixels.shape:
        raise ValueError(f"a picture is an array (H, W, 3) or a tensor (3, H, W), got {tuple(given.shape)}")
    if not pixels.is_floating_point():
        raise ValueError(f"a picture's numbers are uint8 in an array, or floats in [0, 1]; got {given.dtype}")
    if not (pixels.min() >= 0.0 and pixels.max() <= 1.0):
        raise ValueError(f"a picture's floats are in [0, 1], got {float(pixels.min()):g} to {float(pixels.max()):g}")
    return pixels.to("cpu", torch.float32).contiguous()
