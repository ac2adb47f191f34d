"""How near a result is to the source picture, pixel by pixel: reconstruction error, and how much an edit left alone.

All compare the result with the case's own picture (`LatentMSE` and `LatentCost` with its latent). Values are taken as they are,
only RMSE rounds them to what a file would hold. Points are no pictures: the metrics do not suit them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..cases.base import Case
from .base import Metric, Result, Task

BEST_PSNR = 100.0
"""What equal pictures get, in dB, where the formula has no finite value."""

_SSIM_WINDOW = 11
_MS_SSIM_SIDE = 176
"""The smallest side that leaves the window room in the last of five scales, each half the one before (torchmetrics wants a
sixteenth of the side, rounded down, to be at least the window)."""


def eight_bit(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] to the values 0..255 that a file would hold, as float32."""
    return (pictures.clamp(0, 1) * 255).round()


def rmse(a: Tensor, b: Tensor) -> float:
    """The root mean square difference of two pictures whose values run from 0 to 255."""
    return (a.double() - b.double()).square().mean().sqrt().item()


def mse(a: Tensor, b: Tensor) -> float:
    """The mean squared difference of two tensors of one shape."""
    return (a.double() - b.double()).square().mean().item()


def psnr(a: Tensor, b: Tensor) -> float:
    """The peak signal-to-noise ratio, in dB, of values in [0, 1]; at most BEST_PSNR."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return min(float(peak_signal_noise_ratio(a, b, data_range=1.0)), BEST_PSNR)  # in this order NaN stays NaN


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """The structural similarity of two pictures (3, H, W) in [0, 1] around every pixel, (3, H, W). In float32, as the
    field computes it: the mean errs by less than 1e-5 on photographs, and by up to 3e-4, also above 1, where pictures are flat
    and all but equal."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(a[None], b[None], data_range=1.0, return_full_image=True)
    assert isinstance(found, tuple)  # a mean alone only where no map is asked for
    around: Tensor = found[1][0]
    return around


def ssim(a: Tensor, b: Tensor) -> float:
    """The structural similarity of two pictures (3, H, W) in [0, 1], at most 1: the mean of the map over all pixels. The
    pictures are mirrored at their edges, as torchmetrics does from 1.5 on; earlier ones, scikit-image and the authors leave
    out the windows that reach over an edge."""
    return float(ssim_map(a, b).mean())


def fills_window(case: Case) -> bool:
    """Whether a case is a picture whose sides are at least the window of the structural similarity."""
    return case.is_picture and min(case.shape[1:]) >= _SSIM_WINDOW


class RMSE(Metric):
    """The root mean square difference from the source over 8-bit RGB, 0 to 255: the reconstruction error that FireFlow's code
    reports (Deng et al. 2024, arXiv 2412.07517; it is called MSE there, and is a root)."""

    label: ClassVar[str] = "RMSE (0-255)"
    higher_is_better: ClassVar[bool | None] = False
    tasks: ClassVar[tuple[Task, ...]] = ("reconstruct",)

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return rmse(eight_bit(result.picture), eight_bit(case.picture))


class PSNR(Metric):
    """The peak signal-to-noise ratio to the source, in dB; equal pictures get 100."""

    label: ClassVar[str] = "PSNR"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool | None] = True
    tasks: ClassVar[tuple[Task, ...]] = ("reconstruct",)

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return psnr(result.picture, case.picture)


class SSIM(Metric):
    """The structural similarity to the source, at most 1 (Wang et al. 2004, Gaussian window of 11, sigma 1.5). Suits pictures
    whose sides are at least the window."""

    label: ClassVar[str] = "SSIM"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = True
    tasks: ClassVar[tuple[Task, ...]] = ("reconstruct",)

    def suits(self, case: Case) -> bool:
        return fills_window(case)

    def __call__(self, case: Case, result: Result) -> float:
        return ssim(result.picture, case.picture)


class SourceSSIM(Metric):
    """The structural similarity of an edit to its source (see SSIM): neither more nor less is better, for the source itself
    has 1 and nothing changed."""

    label: ClassVar[str] = "SSIM to source"
    digits: ClassVar[int] = 3

    def suits(self, case: Case) -> bool:
        return fills_window(case)

    def __call__(self, case: Case, result: Result) -> float:
        return ssim(result.picture, case.picture)


class SourcePSNR(Metric):
    """The peak signal-to-noise ratio of an edit to its source, in dB; equal pictures get 100. Neither more nor less is better,
    for the source itself has most and nothing changed."""

    label: ClassVar[str] = "PSNR to source"
    unit: ClassVar[str] = "dB"

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return psnr(result.picture, case.picture)


class MSE(Metric):
    """The mean squared difference from the source over values in [0, 1]; papers often print it times 1e3 or 1e4."""

    label: ClassVar[str] = "MSE"
    digits: ClassVar[int] = 6
    higher_is_better: ClassVar[bool | None] = False
    tasks: ClassVar[tuple[Task, ...]] = ("reconstruct", "edit")

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return mse(result.picture, case.picture)


class MultiScaleSSIM(Metric):
    """The structural similarity to the source over five scales, at most 1 (Wang, Simoncelli and Bovik 2003: contrast and
    structure at every scale, brightness at the last). Suits pictures whose sides are at least 176 pixels."""

    label: ClassVar[str] = "MS-SSIM"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = True
    tasks: ClassVar[tuple[Task, ...]] = ("reconstruct", "edit")

    def suits(self, case: Case) -> bool:
        return case.is_picture and min(case.shape[1:]) >= _MS_SSIM_SIDE

    def __call__(self, case: Case, result: Result) -> float:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as similarity

        return float(similarity(result.picture[None], case.picture[None], data_range=1.0))


class LatentMSE(Metric):
    """The mean squared difference from the source in the model's latents: reconstruction error without the codec's own."""

    label: ClassVar[str] = "latent MSE"
    digits: ClassVar[int] = 4
    higher_is_better: ClassVar[bool | None] = False
    tasks: ClassVar[tuple[Task, ...]] = ("reconstruct",)

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return torch.nn.functional.mse_loss(result.latent, result.source_latent).item()


class LatentCost(Metric):
    """The transport cost of an edit: the mean squared difference of the edited latent from the source's (Kulikov et al. 2024,
    arXiv 2412.08629, section 5.3; their sums are over an unknown number of entries, so only ratios compare with them). Neither
    more nor less is better by itself, for an edit that does nothing costs nothing: there it is lower at no worse a distance
    (FID, KID) of the edits from pictures of the target."""

    label: ClassVar[str] = "latent cost"
    digits: ClassVar[int] = 4

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return mse(result.latent, result.source_latent)
