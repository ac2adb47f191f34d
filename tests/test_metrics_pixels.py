"""Pixel metrics against recorded figures, NumPy's formulas and torchmetrics' classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fe.cases.base import Case
from fe.metrics.base import Result
from fe.metrics.pixels import PSNR, RMSE, SSIM, LatentMSE, SourceSSIM, eight_bit, rmse
from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    a = torch.rand(3, 24, 32, generator=generator)
    return a, (a + 0.1 * torch.randn(3, 24, 32, generator=generator)).clamp(0, 1)


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


def test_ssim_is_torchmetrics() -> None:
    source, result = pictures()
    expected = StructuralSimilarityIndexMeasure(data_range=1.0)(result[None], source[None]).item()
    assert scored(SSIM(), result, source) == scored(SourceSSIM(), result, source) == pytest.approx(expected)
    assert scored(SSIM(), source, source) == pytest.approx(1.0)
    assert expected < 0.95


def test_latent_mse_looks_at_latents_alone() -> None:
    source, _ = pictures()
    result = Result(source, torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 0.0, 1.0]))
    assert LatentMSE()(Case("a", source, "", ""), result) == pytest.approx(20 / 3)


def test_points_and_tiny_pictures_suit_no_pixel_metric() -> None:
    points, tiny = Case("p", torch.zeros(9, 2), "", ""), Case("t", torch.zeros(3, 10, 64), "", "")
    assert not any(metric().suits(points) for metric in (RMSE, PSNR, SSIM, SourceSSIM, LatentMSE))
    assert [metric().suits(tiny) for metric in (RMSE, SSIM)] == [True, False]
    assert math.isfinite(scored(RMSE(), tiny.picture, tiny.picture))
