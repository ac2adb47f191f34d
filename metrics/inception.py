"""FID and KID: how far apart two sets of pictures are in the features of Inception, as the field measures it.

The network is torch-fidelity's port of TensorFlow's Inception of 2015, with its 2048 features and TensorFlow's way of
resizing, fed with 8-bit pictures as files hold them. Other ports and other ways of resizing give other numbers (Parmar et al.
2022, arXiv 2104.11222).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..cases.base import Case
from ..options import option
from .base import SetMetric
from .frechet import frechet, kernel_distance
from .networks import DEVICE_HELP, compute_device, picture_features
from .weights import checkpoint_missing, checkpoint_path

INCEPTION = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
"""The weights, which torch-fidelity and torchmetrics keep in the same place."""


@dataclass(frozen=True)
class InceptionDistance(SetMetric):
    """A distance in the 2048 features of Inception."""

    higher_is_better: ClassVar[bool | None] = False
    device: str = option("auto", DEVICE_HELP, repr=False)

    def missing(self) -> str:
        if find_spec("torch_fidelity") is None:
            return "torch-fidelity is not installed; install it with: pip install 'fe-toolkit[fid]'"
        return checkpoint_missing(INCEPTION, "Inception (FID, KID)")

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def features(self, pictures: Tensor) -> Tensor:
        device = compute_device(self.device)
        make = partial(_features, device)
        return torch.stack(picture_features(("inception", str(device)), list(pictures), make)).double()


@dataclass(frozen=True)
class FID(InceptionDistance):
    """Frechet's distance in Inception's features (Heusel et al. 2017, arXiv 1706.08500): it tells of quality and variety at
    once, and of nothing a single picture has. It is far too large at few pictures, by about a constant over their number: below
    the 2048 dimensions no covariance has full rank, papers use 10,000 pictures or more, and figures compare at equal numbers
    alone. `kid` is the one for few pictures."""

    label: ClassVar[str] = "FID"

    def distance(self, features: Tensor, references: Tensor) -> float:
        return frechet(features, references)


@dataclass(frozen=True)
class KID(InceptionDistance):
    """The kernel distance in Inception's features (Binkowski et al. 2018, arXiv 1801.01401), right on average at any number of
    pictures; it may come out below zero. Of all pairs at once, where others average random subsets; papers often print it
    times 100 or 1000."""

    label: ClassVar[str] = "KID"
    digits: ClassVar[int] = 4

    def distance(self, features: Tensor, references: Tensor) -> float:
        return kernel_distance(features, references)


def _features(device: torch.device, pixels: Sequence[Tensor]) -> Tensor:
    network = _inception(checkpoint_path(INCEPTION), device)
    made: Tensor = network(torch.stack(list(pixels)).to(device))[0]
    return made


@lru_cache(maxsize=2)
def _inception(path: Path, device: torch.device) -> Any:
    """The network on `device`. Raises ValueError where its weights are not on this machine."""
    if why := checkpoint_missing(INCEPTION, "Inception (FID, KID)"):
        raise ValueError(why)
    from torch_fidelity import FeatureExtractorInceptionV3

    # it would load the file as a pickle that may run code: it is given what was read as weights alone, and packed again
    weights = io.BytesIO()
    torch.save(torch.load(path, map_location="cpu", weights_only=True), weights)
    weights.seek(0)
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=weights)
    return network.to(device)
