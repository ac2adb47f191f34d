"""LPIPS with random trunks against a computation by hand and torchmetrics, and how DreamSim is called."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torchmetrics.functional.image
import torchvision
from fe.cases.base import Case
from fe.metrics import perceptual
from fe.metrics.base import Metric, Result
from fe.metrics.perceptual import LPIPS, TRUNKS, DreamSim, lpips_distance
from fe.options import OptionError
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

CPU = torch.device("cpu")
LAYERS = {  # whose outputs LPIPS compares, as torchvision numbers them
    "alex": ("alexnet", (1, 4, 7, 9, 11)),
    "vgg": ("vgg16", (3, 8, 15, 22, 29)),
    "squeeze": ("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12)),
}


def pictures(count: int = 3, side: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    a = torch.rand(count, 3, side, side + 8, generator=generator)
    return a, (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def many(metric: Metric, results: list[Tensor], sources: list[Tensor]) -> list[float]:
    cases = [Case(str(i), source, "", "") for i, source in enumerate(sources)]
    scores: list[float] = metric.many(cases, [Result(one, torch.zeros(1), torch.zeros(1)) for one in results])
    return scores


def by_hand(a: Tensor, b: Tensor, net: str, hub: Path) -> Tensor:
    """LPIPS as the paper has it: unit features, squared differences weighed by channel, averaged over places, summed over
    layers; the normalisation of colours is rounded as in the authors' code. The heads are those that torchmetrics ships."""
    name, taken = LAYERS[net]
    features = torchvision.models.get_model(name, weights=None).features.eval()
    weights = torch.load(hub / "checkpoints" / Path(TRUNKS[net]).name, weights_only=True)
    features.load_state_dict({key[9:]: value for key, value in weights.items() if key.startswith("features.")})
    shipped = Path(torchmetrics.functional.image.__file__).parent / "lpips_models" / f"{net}.pth"
    heads = torch.load(shipped, weights_only=True, map_location="cpu")
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((2 * one - 1) - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for one in (a, b))
    total = torch.zeros(len(a))
    for place, layer in enumerate(features):
        x, y = layer(x), layer(y)
        if place in taken:
            difference = torch.nn.functional.normalize(x, dim=1) - torch.nn.functional.normalize(y, dim=1)
            head = heads[f"lin{taken.index(place)}.model.1.weight"].flatten()
            total += (difference.square() * head.view(-1, 1, 1)).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize("net", TRUNKS)
@torch.inference_mode()
def test_lpips_is_the_papers_formula(net: str, random_trunks: Path) -> None:
    a, b = pictures()
    found = lpips_distance(a, b, net, CPU)
    assert found.shape == (3,)
    assert found.min() > 1e-2
    torch.testing.assert_close(found, by_hand(a, b, net, random_trunks), rtol=1e-5, atol=1e-5)


def test_lpips_is_torchmetrics(random_trunks: Path) -> None:
    a, b = pictures()
    theirs = learned_perceptual_image_patch_similarity(a, b, net_type="squeeze", reduction="none", normalize=True)
    torch.testing.assert_close(lpips_distance(a, b, "squeeze", CPU), theirs, rtol=1e-5, atol=1e-5)


def test_lpips_scores_a_batch_of_any_sizes_in_its_order(random_trunks: Path) -> None:
    (a, b), (c, d) = pictures(2), pictures(1, side=80)
    metric = LPIPS(net="squeeze", device="cpu")
    results, sources = [a[0], a[1], c[0], b[0], b[0]], [b[0], b[1], d[0], b[0], a[0]]
    found = many(metric, results, sources)
    alone = [many(metric, [one], [source])[0] for one, source in zip(results, sources, strict=True)]
    assert found == pytest.approx(alone, abs=1e-6)
    assert found[3] == 0.0
    assert found[4] == pytest.approx(found[0], abs=1e-6)
    assert len({round(score, 4) for score in found[:3]}) == 3


def test_large_batches_go_in_parts(random_trunks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pictures(5)
    whole = lpips_distance(a, b, "squeeze", CPU)
    monkeypatch.setattr(perceptual, "_AT_ONCE", 2 * 64 * 72 + 1)
    torch.testing.assert_close(lpips_distance(a, b, "squeeze", CPU), whole)


def test_loading_draws_no_number_and_says_nothing(random_trunks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    perceptual._lpips.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lpips_distance(*pictures(1), "squeeze", CPU)
    assert torch.equal(torch.rand(1), expected)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("net", TRUNKS)
def test_the_smallest_picture_is_the_networks(net: str, random_trunks: Path) -> None:
    least = perceptual._SMALLEST[net]
    a, b = pictures(1, least)
    assert torch.isfinite(lpips_distance(a, b, net, CPU)).all()
    assert LPIPS(net).suits(Case("a", a[0], "", ""))
    assert not LPIPS(net).suits(Case("a", a[0, :, 1:], "", ""))
    assert not LPIPS(net).suits(Case("p", torch.zeros(90, 2), "", ""))
    with pytest.raises(RuntimeError, match=r"too small|greater than actual input size"):
        lpips_distance(a[..., 1:, :], b[..., 1:, :], net, CPU)


def test_the_weights_are_torchvisions() -> None:
    models = torchvision.models
    published = (models.AlexNet_Weights, models.VGG16_Weights, models.SqueezeNet1_1_Weights)
    assert tuple(TRUNKS.values()) == tuple(weights.IMAGENET1K_V1.url for weights in published)


def test_without_its_weights_lpips_says_what_fetches_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    why = LPIPS(net="vgg").missing()
    assert "LPIPS (vgg)" in why
    assert shlex.split(why.partition("with: ")[2]) == [
        *("curl", "-L", "--fail", "--create-dirs", "-o", str(tmp_path / "checkpoints" / "vgg16-397923af.pth")),
        TRUNKS["vgg"],
    ]
    with pytest.raises(ValueError, match="curl"):
        lpips_distance(*pictures(1), "vgg", CPU)


def test_with_its_weights_nothing_is_missing(random_trunks: Path) -> None:
    assert LPIPS(net="vgg").missing() == ""


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(OptionError, match="net must be one of alex, vgg, squeeze, got 'vgg19'"):
        LPIPS(net="vgg19")


class Mean(torch.nn.Module):
    """Stands for DreamSim: how far apart the means of the prepared pictures are."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a.mean((1, 2, 3)) - b.mean((1, 2, 3))).abs()


@pytest.fixture
def dreamsim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A package dreamsim whose `dreamsim` notes how it is called and, as the true one does, prints, moves torch.hub's folder
    and prepares pictures of Pillow; and the files that the true one would have downloaded."""
    calls: list[dict[str, object]] = []

    def prepare(picture: Image.Image) -> Tensor:
        small = picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(small)).movedim(-1, 0)[None] / 255

    def build(pretrained: bool = True, device: str = "cuda", cache_dir: str = "./models") -> tuple[Mean, Callable[..., Tensor]]:
        print(f"Using cached {cache_dir}")
        print(f"Using cache found in {cache_dir}", file=sys.stderr)
        torch.hub.set_dir(cache_dir)
        forced = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
        calls.append({"pretrained": pretrained, "device": device, "cache_dir": cache_dir, "weights only": forced})
        return Mean(), prepare

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    module = ModuleType("dreamsim")
    module.dreamsim = build  # type: ignore[attr-defined]
    module.__spec__ = torch.__spec__  # any will do: only whether there is one is asked
    monkeypatch.setitem(sys.modules, "dreamsim", module)
    for name in perceptual._DREAMSIM_FILES:
        (tmp_path / "dreamsim" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dreamsim" / name).touch()
    return calls


def test_dreamsim_is_called_with_its_own_preparation(
    dreamsim: list[dict[str, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = [torch.full((3, 40, 60), value / 255) for value in (10.6, 90.0, 200.0)]
    metric = DreamSim(device="cpu")
    found = many(metric, grey, [grey[1], grey[1], grey[0]])
    assert found == pytest.approx([79 / 255, 0.0, 189 / 255], abs=1e-6)  # 10.6 is 11 in a file
    many(metric, grey, grey)
    folder = str(tmp_path / "dreamsim")
    assert dreamsim == [{"pretrained": True, "device": "cpu", "cache_dir": folder, "weights only": "1"}]
    assert torch.hub.get_dir() == str(tmp_path)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert capsys.readouterr() == ("", "")


def test_dreamsim_takes_many_in_parts(dreamsim: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "CHUNK", 2)
    results = [torch.full((3, 20, 20), value / 255) for value in range(0, 250, 50)]
    found = many(DreamSim(device="cpu"), results, [results[0]] * 5)
    assert found == pytest.approx([value / 255 for value in range(0, 250, 50)], abs=1e-6)


def test_dreamsim_says_what_is_missing(
    dreamsim: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DreamSim().missing() == ""
    (tmp_path / "dreamsim" / "ensemble_lora" / "adapter_config.json").unlink()
    why = DreamSim().missing()
    assert "mkdir -p" in why
    assert repr(str(tmp_path / "dreamsim")) in shlex.split(why)[-1]
    with pytest.raises(ValueError, match="the weights of DreamSim are not on this machine"):
        many(DreamSim(), [torch.zeros(3, 8, 8)], [torch.zeros(3, 8, 8)])
    assert dreamsim == []
    monkeypatch.delitem(sys.modules, "dreamsim")
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    assert DreamSim().missing().endswith("pip install 'fe-toolkit[dreamsim]'")


def test_torch_reads_weights_alone_where_the_variable_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how DINO's code, which allows any object, is kept from running a pickle."""
    torch.save({"path": Path("x")}, tmp_path / "strange.pth")
    torch.load(tmp_path / "strange.pth", weights_only=False)
    monkeypatch.setenv(perceptual._WEIGHTS_ONLY, "1")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "strange.pth", weights_only=False)
