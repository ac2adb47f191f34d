"""How much an edit left alone outside of the region where it belongs, for cases whose data set says where that is.

There are two ways to count, the option `over` of most of them. "frame" is PIE-Bench's (Ju et al. 2023, arXiv 2310.01506): both
pictures are black inside the region, and scored over the full frame. The region then counts as pixels without any error: where
it takes the share m, the squared error is (1 - m) times that of the background, and the PSNR higher by -10 log10(1 - m).
"background" takes the pixels outside of the region alone, so that cases with large and small regions compare.

All are NaN where the region leaves no pixel.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..cases.base import Case
from ..options import check, option
from . import perceptual, pixels
from .base import Metric, Result
from .networks import DEVICE_HELP, compute_device

_WAYS = ("frame", "background")
_HELP = "full frame with the region black in both pictures, as PIE-Bench does, or the pixels outside of it alone"


def frame(picture: Tensor, mask: Tensor) -> Tensor:
    """The picture (..., 3, H, W) with the region black: times one less the mask (..., 1, H, W) of 0 and 1."""
    return picture * (1 - mask.to(picture))


def outside(picture: Tensor, mask: Tensor) -> Tensor:
    """The pixels (3, N) of a picture (3, H, W) that lie outside of the region, mask (1, H, W)."""
    return picture[:, mask[0] == 0]


class _Background(Metric):
    """A metric of what lies outside of the region. Raises ValueError for a mask of another size than its picture."""

    def suits(self, case: Case) -> bool:
        return case.region is not None and case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        mask = mask_of(case)
        return self.score(result.picture, case.picture, mask) if (mask == 0).any() else math.nan

    @abstractmethod
    def score(self, a: Tensor, b: Tensor, mask: Tensor) -> float:
        """Of two pictures (3, H, W) in [0, 1] and a mask (1, H, W) that leaves a pixel."""


def mask_of(case: Case) -> Tensor:
    """The mask (1, H, W) of a case that has one. Raises ValueError where its size is not the picture's."""
    mask = case.mask
    assert mask is not None  # or the metric would not suit
    if tuple(mask.shape) != (1, *case.shape[1:]):
        raise ValueError(
            f"{case.id}: a mask has the size of its picture, (1, {case.shape[1]}, {case.shape[2]}), got {tuple(mask.shape)}"
        )
    return mask


@dataclass(frozen=True)
class BackgroundPSNR(_Background):
    """The peak signal-to-noise ratio to the source outside of the region, in dB; equal pictures get 100."""

    label: ClassVar[str] = "background PSNR"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool | None] = True
    over: str = option("frame", _HELP, choices=_WAYS)

    def __post_init__(self) -> None:
        check(self)

    def score(self, a: Tensor, b: Tensor, mask: Tensor) -> float:
        pick = frame if self.over == "frame" else outside
        return pixels.psnr(pick(a, mask), pick(b, mask))


@dataclass(frozen=True)
class BackgroundMSE(_Background):
    """The mean squared difference from the source outside of the region, over values in [0, 1]."""

    label: ClassVar[str] = "background MSE"
    digits: ClassVar[int] = 6
    higher_is_better: ClassVar[bool | None] = False
    over: str = option("frame", _HELP, choices=_WAYS)

    def __post_init__(self) -> None:
        check(self)

    def score(self, a: Tensor, b: Tensor, mask: Tensor) -> float:
        pick = frame if self.over == "frame" else outside
        return pixels.mse(pick(a, mask), pick(b, mask))


@dataclass(frozen=True)
class BackgroundSSIM(_Background):
    """The structural similarity to the source outside of the region, at most 1. Over "background" it is the mean over the
    windows centred there, which look into the region by up to five pixels."""

    label: ClassVar[str] = "background SSIM"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = True
    over: str = option("frame", _HELP, choices=_WAYS)

    def __post_init__(self) -> None:
        check(self)

    def suits(self, case: Case) -> bool:
        return super().suits(case) and pixels.fills_window(case)

    def score(self, a: Tensor, b: Tensor, mask: Tensor) -> float:
        if self.over == "frame":
            return pixels.ssim(frame(a, mask), frame(b, mask))
        return float(outside(pixels.ssim_map(a, b), mask).mean())


@dataclass(frozen=True)
class BackgroundLPIPS(Metric):
    """LPIPS to the source over the full frame with the region black in both pictures, as PIE-Bench has it; it takes `net`
    squeeze. Raises ValueError for a mask of another size than its picture."""

    label: ClassVar[str] = "background LPIPS"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = False
    net: str = option("squeeze", perceptual.NET_HELP, choices=tuple(perceptual.TRUNKS))
    device: str = option("auto", DEVICE_HELP, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def missing(self) -> str:
        return perceptual.lpips_missing(self.net)

    def suits(self, case: Case) -> bool:
        return case.region is not None and perceptual.lpips_suits(self.net, case)

    def __call__(self, case: Case, result: Result) -> float:
        return self.many([case], [result])[0]

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        masks, device = [mask_of(case) for case in cases], compute_device(self.device)
        ours = [frame(result.picture, mask) for result, mask in zip(results, masks, strict=True)]
        theirs = [frame(case.picture, mask) for case, mask in zip(cases, masks, strict=True)]
        found = perceptual.in_batches(lambda a, b: perceptual.lpips_distance(a, b, self.net, device), ours, theirs)
        return [score if (mask == 0).any() else math.nan for score, mask in zip(found, masks, strict=True)]
