"""Pictures as people hold them in Python: files, Pillow images, arrays and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .pictures import TRANSPARENT, Picture, of_image, read

AnyImage: TypeAlias = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor
"""A file; a Pillow image; an array (H, W, 3) or a tensor (3, H, W) of uint8, or of floats in [0, 1]; a grey one without the
colours or with one."""


def picture_of(image: AnyImage) -> Picture:
    """The pixels of `image`, float32 (3, H, W) in [0, 1], with what was done to get them.
    Raises ValueError (one sentence) if it cannot be read, or is of another type, shape or range."""
    if isinstance(image, str | Path):
        return read(Path(image))
    if isinstance(image, Image.Image):
        return of_image(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return of_image(_uint8(image))
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        values = torch.from_numpy(image.astype(np.float32))  # a copy: the array may be read-only, or of another byte order
        return Picture(_checked(values.movedim(-1, 0) if image.ndim == 3 else values, image))
    if isinstance(image, Tensor) and (image.is_floating_point() or image.dtype == torch.uint8):
        values = image.detach().to("cpu", torch.float32)
        return Picture(_checked(values if image.is_floating_point() else values / 255.0, image))
    if isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"a picture's numbers are uint8, or floats in [0, 1]; got {image.dtype}")
    raise ValueError(
        f"a picture is a file, a Pillow image, an array (H, W, 3) or a tensor (3, H, W); got {type(image).__name__}"
    )


def mask_of(image: AnyImage, pixels: Tensor) -> Picture:
    """A mask (1, H, W) in [0, 1] for a picture (3, H, W): how bright `image` is, white (or True) where the picture may change;
    brought to the picture's size. Raises ValueError (one sentence) if it cannot be read, is black or transparent, or is of
    another shape than the picture."""
    if isinstance(image, np.ndarray | Tensor) and image.dtype in (np.bool_, torch.bool):
        image = image * 1.0
    try:
        given = picture_of(image)
    except ValueError as fault:
        raise ValueError(f"the mask cannot be used: {fault}") from fault
    if TRANSPARENT in given.notes:
        raise ValueError("the mask is transparent in places, which might mean either; save it as black and white")
    if given.pixels.max() <= 1.0 / 255.0:  # an array of uint8 that holds 0 and 1 is one of these
        raise ValueError("the mask is black all over, so nothing may change; make it white where the picture may")
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
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4)):
        return Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    raise ValueError(f"a picture as an array is (H, W, 3), got {image.shape}")


def _checked(pixels: Tensor, given: Any) -> Tensor:
    """(3, H, W) float32 of what may be grey, held to shape and range."""
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[0] == 1):
        pixels = pixels.expand(3, *pixels.shape[-2:])
    if pixels.ndim != 3 or pixels.shape[0] != 3 or 0 in pixels.shape:
        raise ValueError(f"a picture is an array (H, W, 3) or a tensor (3, H, W), got {tuple(given.shape)}")
    if not (pixels.min() >= 0.0 and pixels.max() <= 1.0):
        raise ValueError(f"a picture's floats are in [0, 1], got {float(pixels.min()):g} to {float(pixels.max()):g}")
    return pixels.contiguous()
