"""Pixel metrics against recorded figures, closed forms, and NumPy, SciPy, scikit-image and torchmetrics on the same arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fe.cases.base import Case
from fe.metrics.base import Result
from fe.metrics.pixels import (
    MSE,
    PSNR,
    RMSE,
    SSIM,
    LatentCost,
    LatentMSE,
    MultiScaleSSIM,
    SourcePSNR,
    SourceSSIM,
    eight_bit,
    rmse,
    ssim_map,
)
from scipy.ndimage import gaussian_filter
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

Array = np.ndarray[Any, np.dtype[np.float64]]


def pictures(height: int = 24, width: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    a = torch.rand(3, height, width, generator=generator)
    return a, (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def scored(metric: Any, result: Tensor, source: Tensor) -> float:
    value: float = metric(Case("a", source, "", ""), Result(result, torch.zeros(2), torch.zeros(2)))
    return value


def test_the_reconstruction_error_is_that_of_fireflows_code(golden: Callable[[str], Any]) -> None:
    settings, tensors = golden("recon_error")
    a, b = tensors["a"], tensors["b"]
    assert rmse(a, b) == pytest.approx(settings["value"], abs=1e-4)
    a, b = (image.movedim(-1, 0).float() / 255 if image.shape[-1] == 3 else image.float() / 255 for image in (a, b))
    assert scored(RMSE(), a, b) == pytest.approx(settings["value"], abs=1e-4)


def test_rmse_is_of_the_values_a_file_would_hold() -> None:
    source, result = torch.full((3, 8, 8), 100.4 / 255), torch.full((3, 8, 8), 103.6 / 255)
    assert scored(RMSE(), result, source) == 4.0
    assert scored(RMSE(), result + 9, source) == 155.0
    assert eight_bit(torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0.0, 128.0, 255.0]


def test_psnr_is_torchmetrics_and_the_formulas() -> None:
    source, result = pictures()
    found = scored(PSNR(), result, source)
    assert found == pytest.approx(PeakSignalNoiseRatio(data_range=1.0)(result, source).item())
    assert found == pytest.approx(-10 * np.log10(np.mean((result.numpy() - source.numpy()) ** 2)), rel=1e-5)
    assert scored(PSNR(), source, source) == 100.0


def test_a_picture_that_is_not_finite_is_not_the_best() -> None:
    source, result = pictures()
    result[0, 0, 0] = math.nan
    assert all(math.isnan(scored(metric, result, source)) for metric in (PSNR(), SourcePSNR(), SSIM(), MSE()))


def test_ssim_is_torchmetrics() -> None:
    source, result = pictures()
    expected = StructuralSimilarityIndexMeasure(data_range=1.0)(result[None], source[None]).item()
    assert scored(SSIM(), result, source) == scored(SourceSSIM(), result, source) == pytest.approx(expected)
    assert scored(SSIM(), source, source) == pytest.approx(1.0)
    assert expected < 0.95


def similarity(a: Array, b: Array) -> tuple[Array, Array]:
    """The structural similarity around every pixel, and its part for contrast and structure: Wang et al.'s formulas with
    SciPy's Gaussian window of 11, mirrored at the edges."""

    def seen(x: Array) -> Array:
        return np.stack([gaussian_filter(channel, 1.5, truncate=3.5, mode="mirror") for channel in x])

    m, n = seen(a), seen(b)
    structure = (2 * (seen(a * b) - m * n) + 0.03**2) / (seen(a * a) - m * m + seen(b * b) - n * n + 0.03**2)
    return (2 * m * n + 0.01**2) / (m * m + n * n + 0.01**2) * structure, structure


def test_the_map_of_the_structural_similarity_is_scipys_and_scikit_images() -> None:
    source, result = pictures()
    found = ssim_map(result, source)
    ours = similarity(result.double().numpy(), source.double().numpy())[0]
    np.testing.assert_allclose(found.numpy(), ours, atol=1e-5)
    assert scored(SSIM(), result, source) == pytest.approx(ours.mean(), abs=1e-5)
    mean, whole = structural_similarity(
        *(one.double().numpy() for one in (result, source)),
        **{"channel_axis": 0, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False, "full": True},
    )
    inside = (slice(None), slice(5, -5), slice(5, -5))  # the windows that lie in the picture, all that scikit-image averages
    np.testing.assert_allclose(found.numpy()[inside], whole[inside], atol=1e-5)
    assert found[inside].mean().item() == pytest.approx(mean, abs=1e-5)


def test_psnr_of_an_edit_is_scikit_images() -> None:
    source, result = pictures()
    expected = peak_signal_noise_ratio(source.double().numpy(), result.double().numpy(), data_range=1.0)
    assert scored(SourcePSNR(), result, source) == pytest.approx(expected, rel=1e-5)
    assert scored(SourcePSNR(), source, source) == 100.0


def test_psnr_of_noise_is_that_of_its_variance() -> None:
    source = torch.full((3, 256, 256), 0.5)
    noise = 0.05 * torch.randn(source.shape, generator=torch.Generator().manual_seed(1))
    assert scored(SourcePSNR(), source + noise, source) == pytest.approx(-20 * math.log10(0.05), abs=0.05)


def test_mse_of_an_offset_is_its_square_and_scikit_images() -> None:
    source, result = pictures()
    assert scored(MSE(), source + 0.25, source) == pytest.approx(0.0625, rel=1e-6)
    expected = mean_squared_error(source.double().numpy(), result.double().numpy())
    assert scored(MSE(), result, source) == pytest.approx(expected, rel=1e-6)
    assert MSE.tasks == ("reconstruct", "edit")


def halved(x: Array) -> Array:
    """The means of squares of two by two pixels; a last odd row or column is left out."""
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return np.asarray((x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4)


def test_multi_scale_ssim_is_the_papers_formula() -> None:
    source, result = pictures(176, 191)
    a, b = result.double().numpy(), source.double().numpy()
    expected = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        whole, structure = similarity(a, b)
        # torchmetrics leaves windows out that reach over an edge, but for the last scale, which may be one window large
        expected *= (whole.mean() if scale == 4 else structure[:, 5:-5, 5:-5].mean()) ** weight
        a, b = halved(a), halved(b)
    assert scored(MultiScaleSSIM(), result, source) == pytest.approx(expected, abs=1e-5)
    assert scored(MultiScaleSSIM(), source, source) == pytest.approx(1.0)
    assert expected < 0.98


def test_multi_scale_ssim_suits_from_176_pixels_on() -> None:
    metric = MultiScaleSSIM()
    assert [metric.suits(Case("a", torch.zeros(3, 200, side), "", "")) for side in (175, 176)] == [False, True]
    assert math.isfinite(scored(metric, torch.rand(3, 200, 176), torch.rand(3, 200, 176)))
    with pytest.raises(ValueError, match="must be larger than"):
        multiscale_structural_similarity_index_measure(torch.rand(1, 3, 200, 175), torch.rand(1, 3, 200, 175), data_range=1.0)


@pytest.mark.parametrize("metric", [LatentMSE, LatentCost])
def test_latent_metrics_look_at_latents_alone(metric: Any) -> None:
    source, _ = pictures()
    result = Result(source, torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 0.0, 1.0]))
    assert metric()(Case("a", source, "", ""), result) == pytest.approx(20 / 3)


def test_points_and_tiny_pictures_suit_no_pixel_metric() -> None:
    points, tiny = Case("p", torch.zeros(9, 2), "", ""), Case("t", torch.zeros(3, 10, 64), "", "")
    every = (RMSE, PSNR, SSIM, SourceSSIM, SourcePSNR, MSE, MultiScaleSSIM, LatentMSE, LatentCost)
    assert not any(metric().suits(points) for metric in every)
    assert [metric().suits(tiny) for metric in (RMSE, SSIM)] == [True, False]
    assert math.isfinite(scored(RMSE(), tiny.picture, tiny.picture))
