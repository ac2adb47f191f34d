"""What comes of one picture: the picture, its latent and its cost, as an object that shows itself in a notebook."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..cases.pictures import to_image, write
from ..experiments.execute import Cost, Outcome
from ..models.base import Model
from ..options import typed
from .strip import evenly, strip

MOST_SHOWN = 9
"""States of a path that are decoded."""


@dataclass(frozen=True, eq=False, repr=False)
class Shown:
    """One picture that a model made.

    `method`: what made it, in words. `notes`: what was done to the input to make it fit, and what a reader should know.
    `pixels`: (3, H, W) in [0, 1] and `latent`: (C, h, w), both float32 on the CPU. `cost`: counted at the network. `counts`:
    what the editor had to show."""

    method: str
    notes: tuple[str, ...]
    pixels: Tensor
    latent: Tensor
    cost: Cost
    counts: Mapping[str, int]

    @cached_property
    def picture(self) -> Image.Image:
        """The picture as a Pillow image."""
        return to_image(self.pixels)

    @typed
    def save(self, path: str | Path, *, latent: bool = False) -> Path:
        """Write the picture as PNG, its folder too where there is none; with `latent` also the latent, as PATH.safetensors.
        Returns where. Raises ValueError for a name of another kind of file, OSError if it cannot be written."""
        place = Path(path)
        if place.suffix.lower() != ".png":
            raise ValueError(f"results are PNG files, got the name {str(path)!r}; let it end in .png")
        place.parent.mkdir(parents=True, exist_ok=True)
        write(self.pixels, place)
        if latent:
            from safetensors.torch import save_file

            save_file({"latent": self.latent}, place.with_suffix(".safetensors"))
        return place

    def __repr__(self) -> str:
        height, width = self.pixels.shape[1:]
        said = f"{type(self).__name__}({self.method}: {width}x{height}, {spent(self.cost)}{self._measured()})"
        return "\n".join([said, *(f"  {note}" for note in self.notes)])

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.picture.save(content, format="PNG")
        return content.getvalue()

    def _measured(self) -> str:
        return ""


@dataclass(frozen=True, eq=False, repr=False)
class Edited(Shown):
    """An edited picture. `path`: where it was kept, pictures (3, H, W) without noise on the way from the source to the result,
    up to nine of them, by the number of the state (0 is the source)."""

    path: Mapping[int, Tensor]

    def strip(self) -> Image.Image:
        """The path in one picture. Raises ValueError if it was not kept."""
        if not self.path:
            raise ValueError("the path was not kept; edit with keep_path=True")
        last = max(self.path)
        names = {0: "source", last: "result"}
        return strip(list(self.path.values()), [names.get(i, f"step {i} of {last}") for i in self.path])


@dataclass(frozen=True, eq=False, repr=False)
class Inverted(Shown):
    """A picture walked to noise: `latent` is that noise, to generate from; `pixels`: how it looks through the codec."""


@dataclass(frozen=True, eq=False, repr=False)
class Generated(Shown):
    """A picture drawn from a prompt."""


@dataclass(frozen=True, eq=False, repr=False)
class Reconstructed(Shown):
    """A picture inverted and generated again. `rmse` against the picture, over 8-bit RGB (0 to 255); `psnr` in dB."""

    rmse: float
    psnr: float

    def _measured(self) -> str:
        return f", RMSE {self.rmse:.3f}, PSNR {self.psnr:.2f} dB"


def parts(outcome: Outcome) -> tuple[Tensor, Tensor, Cost, Mapping[str, int]]:
    """Pixels, latent, cost and counts of the one picture of `outcome`, as tensors that anything may be done with."""
    return outcome.pictures[0].clone(), outcome.latents[0].cpu().clone(), outcome.cost, outcome.edit.counts


@torch.inference_mode()
def pictures_of(path: Sequence[Tensor], model: Model[Any]) -> Mapping[int, Tensor]:
    """States of a path (1, ...), evenly chosen and decoded, by their number."""
    return {i: model.decode(path[i])[0].cpu() for i in evenly(len(path), MOST_SHOWN)} if path else {}


def spent(cost: Cost) -> str:
    """A cost in words; the memory is the GPU's, or that of the whole process where the network runs on the CPU."""
    peak = "" if cost.peak_bytes is None else f", {cost.peak_bytes / 1e9:.2f} GB at its peak"
    return f"{cost.calls} calls, {cost.rows} rows, {cost.seconds:.2f} s{peak}"
