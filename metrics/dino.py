"""How near an edit stays to its source as DINO sees it: what is shown and how it lies, less than how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..cases.base import Case
from ..options import check, option
from .base import Result
from .networks import DEVICE_HELP, NetworkMetric, compute_device, cosines, load_network, picture_features
from .weights import hub_missing

VIT_B8 = "facebook/dino-vitb8"
SIDE = 224
"""Pixels that DINO is given on a side: what it was trained on."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours in [0, 1]: DINO and DINOv2 were trained on pictures normalised by them."""

_KINDS = ("vit", "dinov2", "dinov2_with_registers")


def load_dino(model: str, device: torch.device) -> Any:
    """The DINO or DINOv2 network of a hub id or folder, which is looked for on this machine only. Raises ValueError (one
    sentence) if it is not here, or of another kind."""
    return load_network(_read, model, device)


def _read(folder: Path, **told: bool) -> Any:
    from transformers import AutoConfig, AutoModel, ViTModel

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type not in _KINDS:
        raise ValueError(f"it is of the kind {config.model_type}, where one of {', '.join(_KINDS)} is needed")
    if config.model_type == "vit":  # without the pooler, which DINO does not have: it would be drawn at random
        return ViTModel.from_pretrained(folder, add_pooling_layer=False, **told)
    return AutoModel.from_pretrained(folder, **told)


def run_dino(network: Any, pixels: Tensor) -> Tensor:
    """All tokens of the last layer, normed, (B, 1 + patches, D), of normalised pictures (B, 3, H, W) of any size: positions
    are interpolated where it is not the network's own."""
    if network.config.model_type == "vit":
        tokens: Tensor = network(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    else:  # DINOv2 always does
        tokens = network(pixel_values=pixels).last_hidden_state
    return tokens


def normalised(pictures: Tensor) -> Tensor:
    """(B, 3, H, W), ImageNet's mean taken away and divided by its spread."""
    mean, std = pictures.new_tensor(MEAN).view(3, 1, 1), pictures.new_tensor(STD).view(3, 1, 1)
    return (pictures - mean) / std


def dino_features(model: str, device: str, pictures: Sequence[Tensor]) -> list[Tensor]:
    """The CLS token (D,) of each picture (3, H, W) in [0, 1]: as 8-bit pixels, the shorter side resized to 224 (bicubic,
    by Pillow), the middle 224 x 224 cut out, normalised as ImageNet."""
    from torchvision.transforms.functional import InterpolationMode, center_crop, pil_to_tensor, resize, to_pil_image

    where = compute_device(device)
    network = load_dino(model, where)

    def cls(pixels: Sequence[Tensor]) -> Tensor:
        images = [resize(to_pil_image(one), [SIDE], InterpolationMode.BICUBIC) for one in pixels]
        small = torch.stack([pil_to_tensor(center_crop(image, [SIDE])) for image in images])
        return run_dino(network, normalised(small.to(where).float() / 255))[:, 0]

    return picture_features(("dino", model, str(where)), pictures, cls)


@dataclass(frozen=True)
class DinoMetric(NetworkMetric):
    """A metric of what a DINO network sees."""

    model: str = option(VIT_B8, "the DINO or DINOv2 network: a hub id OWNER/NAME, or a folder")
    device: str = option("auto", DEVICE_HELP, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def missing(self) -> str:
        return hub_missing(self.model)


@dataclass(frozen=True)
class Dino(DinoMetric):
    """The cosine of the CLS tokens of the edited and the source picture, from -1 to 1: the higher, the more of the source was
    kept; the source itself has 1 (DINO: Caron et al. 2021, arXiv 2104.14294, ViT-B/8; DINOv2: Oquab et al. 2023, arXiv
    2304.07193).

    Pictures go in as `dino_features` says. Papers on editing seldom say how they did; for square pictures this differs from
    other usual ways by the filter of the resize alone, where they do not cut the border off."""

    label: ClassVar[str] = "DINO"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = True

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        sources = dino_features(self.model, self.device, [case.picture for case in cases])
        return cosines(dino_features(self.model, self.device, [result.picture for result in results]), sources)
