"""Distances between sets: held against closed forms, scipy's matrix root and torchmetrics; and the networks that features are
of, at random weights and without any."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fe.cases.base import Case
from fe.cases.scenes import ScenesCases
from fe.experiments.names import build_metric
from fe.metrics import inception
from fe.metrics.frechet import frechet, kernel_distance
from fe.metrics.inception import FID, KID
from fe.metrics.scenes_sets import JudgeFrechet
from fe.metrics.weights import checkpoint_path
from fe.scenes.judge import Judge
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

SIZES = [(40, 30, 6), (9, 12, 20), (25, 8, 10)]  # pictures, references, dimensions: also more dimensions than pictures


def sample(count: int, dimensions: int, seed: int = 0, spread: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64) / math.sqrt(dimensions)
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64) @ mixed * spread + shift


def exact(mean: Tensor, covariance: Tensor, count: int) -> Tensor:
    """A sample with exactly these moments."""
    raw = sample(count, len(mean), seed=5)
    centred = torch.linalg.qr(raw - raw.mean(0)).Q * math.sqrt(count - 1)
    moved: Tensor = centred @ torch.linalg.cholesky(covariance).T + mean
    return moved


class Flat(nn.Module):
    """Pixels as features, for libraries that want a network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1).double()


def test_frechet_is_that_of_scipys_matrix_root() -> None:
    x, y = sample(40, 6), sample(30, 6, 1, 1.7, 0.4)
    first, second = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    means = float((x.mean(0) - y.mean(0)).square().sum())
    wanted = means + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert frechet(x, y) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(("n", "m", "dimensions"), SIZES)
def test_frechet_is_torchmetrics(n: int, m: int, dimensions: int) -> None:
    x, y = (
        sample(n, 3 * dimensions).reshape(n, 3, dimensions, 1),
        sample(m, 3 * dimensions, 1, 2.0).reshape(m, 3, dimensions, 1),
    )
    theirs = FrechetInceptionDistance(feature=Flat(3 * dimensions), normalize=True).set_dtype(torch.float64)
    theirs.update(y, real=True)
    theirs.update(x, real=False)
    assert frechet(x.flatten(1), y.flatten(1)) == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_frechet_of_two_gaussians_is_the_closed_form() -> None:
    mean, other = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([0.5, 1.0, 1.0]).double()
    variances, others = torch.tensor([1.0, 4.0, 0.25]).double(), torch.tensor([9.0, 1.0, 0.25]).double()
    x, y = exact(mean, variances.diag(), 50), exact(other, others.diag(), 31)
    assert frechet(x, y) == pytest.approx(0.25 + 9 + (1 - 3) ** 2 + (2 - 1) ** 2 + 0, rel=1e-10)
    turn = torch.linalg.qr(sample(3, 3, 9)).Q
    assert frechet(x @ turn, y @ turn) == pytest.approx(14.25, rel=1e-10)  # no axis is special


def test_frechet_of_a_set_that_is_moved_and_stretched_in_more_dimensions_than_pictures() -> None:
    x = sample(7, 30)
    spread = float(np.trace(np.cov(x.numpy(), rowvar=False)))
    assert frechet(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet(x, x + 2) == pytest.approx(4 * 30, rel=1e-10)
    centred = x - x.mean(0)
    assert frechet(centred, 3 * centred) == pytest.approx((3 - 1) ** 2 * spread, rel=1e-10)
    assert frechet(x, sample(5, 30, 3)) == pytest.approx(frechet(sample(5, 30, 3), x), rel=1e-12)


def test_frechet_is_larger_at_fewer_pictures_of_the_same_two_distributions() -> None:
    few, more = (frechet(sample(n, 12, 0)[: n // 2], sample(n, 12, 0)[n // 2 :]) for n in (40, 4000))
    assert few > 10 * more > 0


def test_the_kernel_distance_by_hand() -> None:
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    # kernels (x.y / 2 + 1)^3: within x 1; within y 1, 1, 1; between 8, 1, 1, 1, 1, 8
    assert kernel_distance(x, y) == pytest.approx(1 + 1 - 2 * 20 / 6)


@pytest.mark.parametrize(("n", "m", "dimensions"), [(40, 40, 6), (12, 12, 20), (1500, 1500, 4)])
def test_the_kernel_distance_is_torchmetrics(n: int, m: int, dimensions: int) -> None:
    x, y = sample(n, dimensions), sample(m, dimensions, 1, 1.5, 0.2)
    assert kernel_distance(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)


def test_the_kernel_distance_is_torchmetrics_kid_of_one_subset_of_all() -> None:
    x, y = sample(20, 12).reshape(20, 3, 2, 2), sample(20, 12, 1, 1.5).reshape(20, 3, 2, 2)
    theirs = KernelInceptionDistance(feature=Flat(12), subsets=1, subset_size=20, normalize=True).set_dtype(torch.float64)
    theirs.update(y, real=True)
    theirs.update(x, real=False)
    mean, _ = theirs.compute()
    assert kernel_distance(x.flatten(1), y.flatten(1)) == pytest.approx(float(mean), rel=1e-5)


def test_the_kernel_distance_is_right_on_average_at_few_pictures() -> None:
    found = [kernel_distance(sample(400, 5)[i : i + 5], sample(400, 5)[i + 200 : i + 205]) for i in range(0, 200, 5)]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found))


@pytest.mark.parametrize("distance", [frechet, kernel_distance])
def test_a_single_picture_is_at_no_distance(distance: Callable[[Tensor, Tensor], float]) -> None:
    assert math.isnan(distance(sample(1, 4), sample(5, 4)))
    assert math.isnan(distance(sample(5, 4), sample(1, 4)))


def test_the_judges_features_are_what_its_heads_read() -> None:
    cases = ScenesCases().take(3)
    pictures, judge = torch.stack([case.picture for case in cases]), Judge.load()
    features = JudgeFrechet().features(pictures)
    assert (features.shape, features.dtype) == ((3, 128), torch.float64)
    with torch.no_grad():
        logits = torch.cat(judge(pictures), 1)
        torch.testing.assert_close(judge.heads(features.float()), logits, rtol=1e-5, atol=1e-5)
    assert JudgeFrechet().missing() == ""


def test_what_the_judge_cannot_read_does_not_suit_it() -> None:
    case = ScenesCases().take(1)[0]
    assert JudgeFrechet().suits(case)
    assert JudgeFrechet().suits(Case("drawn", case.picture, "a", "b"))
    assert not JudgeFrechet().suits(Case("photo", torch.zeros(3, 64, 96), "a", "b"))
    assert not JudgeFrechet().suits(Case("cloud", torch.zeros(5, 2), "a", "b", shown=case.shown))
    with pytest.raises(ValueError, match=r"reads pictures of shape \(3, 64, 64\), got \(3, 32, 32\)"):
        JudgeFrechet().features(torch.zeros(1, 3, 32, 32))


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A folder of torch.hub's with random weights for Inception, and the network that they are of."""
    fidelity = pytest.importorskip("torch_fidelity")
    torch.manual_seed(0)
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = fidelity.FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=nothing)
    home = tmp_path_factory.mktemp("hub")
    (home / "checkpoints").mkdir()
    torch.save(network.state_dict(), home / "checkpoints" / inception.INCEPTION.rpartition("/")[2])
    return home, network


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let torch.hub's folder be another."""
    inception._inception.cache_clear()
    return lambda home: monkeypatch.setattr(torch.hub, "get_dir", lambda: str(home))


def test_fid_and_kid_are_torchmetrics_of_the_same_network(
    random_inception: tuple[Path, nn.Module], hub: Callable[[Path], None]
) -> None:
    home, network = random_inception
    hub(home)
    generator = torch.Generator().manual_seed(0)
    pictures, references = (torch.rand(4, 3, 40, 56, generator=generator) * most for most in (1.0, 0.5))
    assert FID(device="cpu").missing() == ""
    features = FID(device="cpu").features(pictures), KID(device="cpu").features(references)
    assert (features[0].shape, features[0].dtype) == ((4, 2048), torch.float64)

    class First(nn.Module):
        num_features = 2048

        def forward(self, given: Tensor) -> Tensor:
            features: Tensor = network(given)[0]
            return features

    theirs: tuple[Any, Any] = (
        FrechetInceptionDistance(feature=First()).set_dtype(torch.float64),
        KernelInceptionDistance(feature=First(), subsets=1, subset_size=4).set_dtype(torch.float64),
    )
    for metric in theirs:
        metric.update((references * 255).round().to(torch.uint8), real=True)
        metric.update((pictures * 255).round().to(torch.uint8), real=False)
    assert FID().distance(*features) == pytest.approx(float(theirs[0].compute()), rel=1e-5)
    assert KID().distance(*features) == pytest.approx(float(theirs[1].compute()[0]), rel=1e-5)


@dataclass
class Trap:
    """What a pickle runs when it is read."""

    ran: ClassVar[list[str]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Trap.ran.append, ("ran",)


def test_weights_that_are_no_weights_are_not_run(tmp_path: Path, hub: Callable[[Path], None]) -> None:
    pytest.importorskip("torch_fidelity")
    hub(tmp_path)
    checkpoint_path(inception.INCEPTION).parent.mkdir()
    torch.save({"fc.weight": Trap()}, checkpoint_path(inception.INCEPTION))
    with pytest.raises(Exception, match="Weights only load failed"):
        FID(device="cpu").features(torch.rand(1, 3, 20, 20))
    assert Trap.ran == []


def test_what_is_missing_is_said_with_what_fetches_it(
    tmp_path: Path, hub: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_fidelity")
    hub(tmp_path / "none")
    for name in ("fid", "kid"):
        assert "fetch them with: curl -L" in build_metric(name).missing()
    with pytest.raises(ValueError, match=r"weights of Inception .* are not on this machine"):
        FID().features(torch.rand(1, 3, 20, 20))
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setattr(inception, "find_spec", lambda name: None)
    assert FID().missing() == "torch-fidelity is not installed; install it with: pip install 'fe-toolkit[fid]'"


def test_references_are_an_option_and_part_of_what_a_metric_is_but_the_device_is_not() -> None:
    assert build_metric("kid", {"against": "source", "device": "cpu"}) == KID("source", "cpu")
    assert repr(KID("source", "cpu")) == "KID(against='source')"
    assert FID().suits(Case("photo", torch.zeros(3, 9, 9), "a", "b"))
    assert not FID().suits(Case("cloud", torch.zeros(5, 2), "a", "b"))
