"""How far an edit moved the source's structure: the distance of DINO's self-similarities (Tumanyan et al. 2022, Splicing ViT
features, arXiv 2201.00424), as PIE-Bench measures it (Ju et al. 2023, Direct Inversion, arXiv 2310.01506)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ..cases.base import Case
from ..options import option
from .base import Result
from .dino import SIDE, VIT_B8, DinoMetric, load_dino, normalised, run_dino
from .networks import compute_device, picture_features

LONGEST = 480
"""Pixels of the longer side, at most, once the shorter one has 224."""


RESIZE_HELP = "how pictures are made smaller: plain, as torchvision did until 0.16, or antialiased, as from 0.17 on"
RESIZES = ("plain", "antialiased")


def structure_distance(
    a: Tensor, b: Tensor, *, model: str = VIT_B8, scale: str = "255", resize: str = "plain", device: str = "auto"
) -> float:
    """The structure distance of two pictures (3, H, W) in [0, 1] of one size, at least 0 (see `StructureDistance`). Raises
    ValueError if their sizes differ, or the network is not on this machine."""
    return StructureDistance(model, device, scale, resize).distances([a], [b])[0]


def last_keys(network: Any, pixels: Tensor) -> Tensor:
    """The keys (B, T, D) in the last block, heads side by side, of normalised pictures (B, 3, H, W)."""
    layers = [module for name, module in network.named_modules() if name.rpartition(".")[2] in ("key", "k_proj")]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no layer of keys; the structure distance needs a DINO network")
    kept: list[Tensor] = []
    hook = layers[-1].register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        run_dino(network, pixels)
    finally:
        hook.remove()
    return kept[0]


def cosine_matrix(keys: Tensor) -> Tensor:
    """The cosines (B, T, T) between the tokens of keys (B, T, D)."""
    lengths: Tensor = keys.norm(dim=2, keepdim=True)
    return (keys @ keys.mT) / (lengths @ lengths.mT).clamp(min=1e-8)


@dataclass(frozen=True)
class StructureDistance(DinoMetric):
    """The mean square difference of the two pictures' matrices of cosines between the keys of DINO ViT-B/8's last block (block
    11), all tokens with the CLS token; of the whole picture, whatever the case's region. 0 for the source itself; papers often
    print it times 1000.

    The shorter side is resized to 224 and the longer to at most 480 (bilinear), then normalised as ImageNet. `resize`: the
    environment that PIE-Bench's authors give has torchvision 0.13.1, which does not smooth before it leaves pixels out
    ("plain"); since 0.17 the same script does ("antialiased"), which is another number. `scale` is PIE-Bench's quirk: its
    script feeds pixels from 0 to 255 to that normalisation, which is made for 0 to 1, and its numbers, which are everyone's,
    are of that ("255"). "1" is what the distance's authors do.
    """

    label: ClassVar[str] = "structure"
    digits: ClassVar[int] = 4
    higher_is_better: ClassVar[bool | None] = False

    scale: str = option("255", "pixels are given as 0 to 255, as PIE-Bench does, or 0 to 1", choices=("255", "1"))
    resize: str = option("plain", RESIZE_HELP, choices=RESIZES)

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        return self.distances([case.picture for case in cases], [result.picture for result in results])

    def distances(self, sources: Sequence[Tensor], edited: Sequence[Tensor]) -> list[float]:
        """The distance of each of `edited` from the one of `sources` in its place, pictures (3, H, W) in [0, 1]. Raises
        ValueError if their sizes differ."""
        if [picture.shape for picture in sources] != [picture.shape for picture in edited]:
            raise ValueError("the structure distance compares pictures of one size, and these have different ones")
        pairs = zip(self._similarities(sources), self._similarities(edited), strict=True)
        return [mse_loss(before, after).item() for before, after in pairs]

    def _similarities(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """The cosines (T, T) between all T tokens of each picture."""
        from torchvision.transforms.functional import InterpolationMode, resize

        where, smooth = compute_device(self.device), self.resize == "antialiased"
        network = load_dino(self.model, where)

        def similarity(pixels: Sequence[Tensor]) -> Tensor:
            values = torch.stack(list(pixels)).to(where).float() / (1 if self.scale == "255" else 255)
            small = resize(values, [SIDE], InterpolationMode.BILINEAR, max_size=LONGEST, antialias=smooth)
            return cosine_matrix(last_keys(network, normalised(small)))

        return picture_features(("structure", self.model, self.scale, smooth, str(where)), pictures, similarity)
