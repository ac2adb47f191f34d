"""Metrics outside of the region of an edit: both ways to count, against each other, NumPy, scikit-image and torchmetrics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fe.cases.base import Case, Stored
from fe.metrics.background import BackgroundLPIPS, BackgroundMSE, BackgroundPSNR, BackgroundSSIM, frame
from fe.metrics.base import Metric, Result
from fe.metrics.perceptual import LPIPS, lpips_distance
from fe.metrics.pixels import MSE, PSNR, SSIM
from fe.options import OptionError
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity, structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.regression import MeanSquaredError

WAYS = ("frame", "background")
METRICS: list[Metric] = [metric(over=way) for metric in (BackgroundPSNR, BackgroundMSE, BackgroundSSIM) for way in WAYS]
METRICS += [BackgroundLPIPS(device="cpu")]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=repr)


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    a = torch.rand(3, 40, 48, generator=generator)
    return a, (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def rectangle(top: int = 4, bottom: int = 20, left: int = 6, right: int = 30) -> Tensor:
    mask = torch.zeros(1, 40, 48)
    mask[:, top:bottom, left:right] = 1
    return mask


def scored(metric: Metric, result: Tensor, source: Tensor, mask: Tensor | None) -> float:
    case = Case("a", source, "", "", region=mask)
    score: float = metric(case, Result(result, torch.zeros(1), torch.zeros(1)))
    return score


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.bool])
def test_the_frame_is_black_inside_the_region(kind: torch.dtype) -> None:
    picture, mask = pictures()[0], rectangle()
    expected = picture.clone()
    expected[:, 4:20, 6:30] = 0
    assert torch.equal(frame(picture, mask.to(kind)), expected)
    assert torch.equal(frame(picture[None], mask[None].to(kind)), expected[None])


def test_mse_and_psnr_are_counted_over_what_they_say() -> None:
    source, result = pictures()
    mask = rectangle()
    squared, kept = ((result - source).double().numpy() ** 2), mask.numpy()[0] == 0
    outside = squared[:, kept].sum()
    frame, background = outside / squared.size, outside / (3 * kept.sum())
    for way, expected in zip(WAYS, (frame, background), strict=True):
        assert scored(BackgroundMSE(way), result, source, mask) == pytest.approx(expected, rel=1e-5)
        assert scored(BackgroundPSNR(way), result, source, mask) == pytest.approx(-10 * np.log10(expected), rel=1e-5)


@pytest.mark.parametrize("bottom", [5, 20, 39])
def test_the_frame_dilutes_by_the_regions_share(bottom: int) -> None:
    source, result = pictures()
    mask = rectangle(bottom=bottom)
    share = mask.mean().item()
    mse, psnr = ([scored(metric(way), result, source, mask) for way in WAYS] for metric in (BackgroundMSE, BackgroundPSNR))
    assert mse[0] == pytest.approx((1 - share) * mse[1], rel=1e-6)
    assert psnr[0] == pytest.approx(psnr[1] - 10 * math.log10(1 - share), abs=1e-5)
    assert psnr[0] > psnr[1]


def test_over_the_frame_they_are_what_pie_bench_computes(random_trunks: Path) -> None:
    """PIE-Bench multiplies both pictures by one less the mask and hands them to torchmetrics."""
    source, result = pictures()
    mask = rectangle()
    a, b = (result * (1 - mask))[None], (source * (1 - mask))[None]
    expected: dict[Metric, Any] = {
        BackgroundPSNR(): PeakSignalNoiseRatio(data_range=1.0)(a, b),
        BackgroundMSE(): MeanSquaredError()(a.contiguous(), b.contiguous()),
        BackgroundSSIM(): structural_similarity_index_measure(a, b, data_range=1.0),
        BackgroundLPIPS(device="cpu"): learned_perceptual_image_patch_similarity(a * 2 - 1, b * 2 - 1, net_type="squeeze"),
    }
    for metric, value in expected.items():
        assert scored(metric, result, source, mask) == pytest.approx(value.item(), rel=1e-5, abs=1e-6)


def test_ssim_of_the_background_is_of_the_windows_centred_there() -> None:
    source, result = pictures()
    mask = torch.ones(1, 40, 48)
    mask[:, 5:-5, 5:20] = 0  # only windows that lie in the picture, where scikit-image computes the same
    _, whole = structural_similarity(
        *(one.double().numpy() for one in (result, source)),
        **{"channel_axis": 0, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False, "full": True},
    )
    expected = whole[:, 5:-5, 5:20].mean()
    assert scored(BackgroundSSIM("background"), result, source, mask) == pytest.approx(expected, abs=1e-5)


@every_metric
def test_what_happens_inside_the_region_is_not_seen(metric: Metric, random_trunks: Path) -> None:
    source, result = pictures()
    mask = rectangle()
    other = result.clone()
    margin = 5 if metric == BackgroundSSIM("background") else 0  # by which windows centred outside look in
    other[:, 4 + margin : 20 - margin, 6 + margin : 30 - margin] = 0.5
    assert scored(metric, other, source, mask) == pytest.approx(scored(metric, result, source, mask), abs=1e-6)
    other[:, 30:, :] = 0.5
    assert abs(scored(metric, other, source, mask) - scored(metric, result, source, mask)) > 1e-3


@every_metric
def test_a_region_of_everything_leaves_nothing_to_score(metric: Metric, random_trunks: Path) -> None:
    source, result = pictures()
    assert math.isnan(scored(metric, result, source, torch.ones(1, 40, 48)))
    one_left = torch.ones(1, 40, 48)
    one_left[0, 20, 20] = 0
    assert math.isfinite(scored(metric, result, source, one_left))


def test_a_region_of_nothing_leaves_the_whole_picture(random_trunks: Path) -> None:
    source, result = pictures()
    nothing = torch.zeros(1, 40, 48)
    for whole, part in ((PSNR(), BackgroundPSNR), (MSE(), BackgroundMSE), (SSIM(), BackgroundSSIM)):
        for way in WAYS:
            assert scored(part(way), result, source, nothing) == pytest.approx(scored(whole, result, source, None), rel=1e-6)
    squeeze = LPIPS(net="squeeze", device="cpu")
    assert scored(BackgroundLPIPS(device="cpu"), result, source, nothing) == scored(squeeze, result, source, None)


def test_lpips_scores_many_with_a_mask_each(random_trunks: Path) -> None:
    source, result = pictures()
    masks = [rectangle(), torch.ones(1, 40, 48), rectangle(top=30, bottom=40)]
    cases = [Case(str(i), source, "", "", region=mask) for i, mask in enumerate(masks)]
    found = BackgroundLPIPS(net="alex", device="cpu").many(cases, [Result(result, torch.zeros(1), torch.zeros(1))] * 3)
    assert math.isnan(found[1])
    for i in (0, 2):
        a, b = result * (masks[i] == 0), source * (masks[i] == 0)
        assert found[i] == pytest.approx(lpips_distance(a[None], b[None], "alex", torch.device("cpu")).item(), abs=1e-6)


@every_metric
def test_they_suit_pictures_with_a_region(metric: Metric) -> None:
    def unread() -> Tensor:
        raise AssertionError("what suits is told without reading")

    picture = torch.zeros(3, 40, 48)
    assert metric.suits(Case("a", Stored((3, 40, 48), unread), "", "", region=Stored((1, 40, 48), unread)))
    assert not metric.suits(Case("a", picture, "", ""))
    assert not metric.suits(Case("a", torch.zeros(9, 2), "", "", region=torch.zeros(1, 9, 2)))
    tiny = Case("a", torch.zeros(3, 10, 48), "", "", region=torch.zeros(1, 10, 48))
    assert metric.suits(tiny) == isinstance(metric, BackgroundPSNR | BackgroundMSE)


@every_metric
def test_a_mask_of_another_size_is_refused(metric: Metric, random_trunks: Path) -> None:
    source, result = pictures()
    with pytest.raises(ValueError, match=r"a: a mask has the size of its picture, \(1, 40, 48\), got \(1, 40, 47\)"):
        scored(metric, result, source, torch.zeros(1, 40, 47))


def test_unknown_ways_are_refused() -> None:
    for metric in (BackgroundPSNR, BackgroundMSE, BackgroundSSIM):
        with pytest.raises(OptionError, match="over must be one of frame, background, got 'crop'"):
            metric(over="crop")


def test_lpips_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert "LPIPS (squeeze)" in BackgroundLPIPS().missing()
    assert BackgroundPSNR().missing() == ""
