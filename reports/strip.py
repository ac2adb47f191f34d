"""A strip of pictures in a row: the states between a source and its edit."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..cases.pictures import to_image

SMALLEST = 128
"""Pictures are enlarged, pixel by pixel, until they are this wide."""
_GAP, _CAPTION = 4, 18


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices into `count` things, evenly spread, the first and the last among them."""
    shown = min(count, most)
    return [round(i * (count - 1) / max(1, shown - 1)) for i in range(shown)]


def strip(pictures: Sequence[Tensor], captions: Sequence[str]) -> Image.Image:
    """Pictures (3, H, W) in [0, 1], all of one size, in a row on white with a caption under each.

    Raises ValueError unless there are as many captions as pictures, and at least one.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(f"a strip needs a caption for each picture, got {len(pictures)} and {len(captions)}")
    height, width = pictures[0].shape[1:]
    scale = max(1, -(-SMALLEST // width))
    wide, tall = width * scale, height * scale
    page = Image.new("RGB", (len(pictures) * (wide + _GAP) - _GAP, tall + _CAPTION), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(12)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = i * (wide + _GAP)
        page.paste(to_image(picture).resize((wide, tall), Image.Resampling.NEAREST), (left, 0))
        draw.text((left + wide / 2, tall + _CAPTION / 2), caption, "black", font, anchor="mm")
    return page
