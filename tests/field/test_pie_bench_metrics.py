"""PIE-Bench's columns against what its public evaluation does, written down by hand: torchmetrics, and random networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fe.cases.base import Case
from fe.metrics.base import Metric, Result
from fe.metrics.pie_bench import (
    PieClipEdited,
    PieClipSource,
    PieClipWhole,
    PieLPIPS,
    PieMSE,
    PiePSNR,
    PieSSIM,
    PieStructure,
)
from fe.registry import METRICS
from fe.scenes.text import clip_tokenizer
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchmetrics.regression import MeanSquaredError
from torchvision import transforms
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, ViTConfig, ViTModel

SIDE = 96
PROMPTS = ("a small red circle at the top", "a large blue star on the left", "the green square", "a striped yellow star")


def lively(kind: Any, config: Any, **options: bool) -> Any:
    """A network with weights that tell pictures apart, which those that it starts with do not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        network = kind(config, **options)
        for weight in network.parameters():
            if weight.ndim > 1:  # biases would say the same of all of them
                nn.init.normal_(weight, std=0.3)
    return network.eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a CLIP of toy size with random weights."""
    folder = tmp_path_factory.mktemp("pie") / "clip"
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = clip_tokenizer()
    text = {**size, "vocab_size": len(words), "max_position_embeddings": 16}
    text |= {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config = CLIPConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=24)
    lively(CLIPModel, config).save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a ViT of toy size with random weights."""
    folder = tmp_path_factory.mktemp("pie") / "dino"
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = ViTConfig(**size, image_size=224, patch_size=32)
    lively(ViTModel, config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def masks() -> list[Tensor]:
    """(1, SIDE, SIDE) of 0 and 1: a box that is no square, a half, everything, scattered pixels, nothing."""
    box, half, scattered = torch.zeros(3, 1, SIDE, SIDE)
    box[:, 10:30, 40:90] = 1
    half[:, SIDE // 2 :] = 1
    scattered.bernoulli_(0.3, generator=torch.Generator().manual_seed(1))
    return [box, half, torch.ones(1, SIDE, SIDE), scattered, torch.zeros(1, SIDE, SIDE)]


def pictures(seed: int) -> list[Tensor]:
    """Smooth pictures with values between the 256 levels, one for each mask."""
    drawn = torch.rand(len(masks()), 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return list(interpolate(drawn, (SIDE, SIDE), mode="bicubic").clamp(0, 1))


def cases() -> list[Case]:
    return [
        Case(f"case {i}", picture, PROMPTS[i % 4], PROMPTS[(i + 1) % 4], region=mask)
        for i, (picture, mask) in enumerate(zip(pictures(2), masks(), strict=True))
    ]


def results() -> list[Result]:
    """Edits that are half the source."""
    mixed = [(one + other) / 2 for one, other in zip(pictures(2), pictures(3), strict=True)]
    return [Result(picture, torch.zeros(1), torch.zeros(1)) for picture in mixed]


SSIM = {"channel_axis": 0, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}


def as_file(picture: Tensor) -> np.ndarray[Any, Any]:
    """(H, W, 3) of uint8, as a file of the picture is opened."""
    return np.asarray(transforms.functional.to_pil_image((picture * 255).round().to(torch.uint8)))


class Evaluation:
    """What the public evaluation does with an array of a picture, written down once more; random networks in the place of its
    own. A column's value, NaN where it has the word nan."""

    def __init__(self, clip: str, dino: str) -> None:
        self.clip, self.words = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
        self.vit = ViTModel.from_pretrained(dino, add_pooling_layer=False).eval()

    @torch.no_grad()
    def columns(self, case: Case, result: Result) -> Mapping[str, float]:
        assert case.mask is not None
        source, edited = as_file(case.picture), as_file(result.picture)
        mask = case.mask[0].numpy()[:, :, np.newaxis].repeat(3, axis=2)
        rest: list[Any] = [math.nan] * 4
        if (1 - mask).sum() != 0:
            a, b = (torch.tensor(one.astype(np.float32) / 255 * (1 - mask)).permute(2, 0, 1)[None] for one in (source, edited))
            rest = [
                PeakSignalNoiseRatio(data_range=1.0)(a, b),
                LearnedPerceptualImagePatchSimilarity(net_type="squeeze")(a * 2 - 1, b * 2 - 1),
                MeanSquaredError()(a.contiguous(), b.contiguous()),
                structural_similarity(a[0].numpy(), b[0].numpy(), **SSIM),  # as torchmetrics was then
            ]
        return {
            "pie-structure": mse_loss(self.similarity(edited), self.similarity(source)).item(),
            **dict(zip(("pie-psnr", "pie-lpips", "pie-mse", "pie-ssim"), map(float, rest), strict=True)),
            "pie-clip-source": self.agreement(source, case.source),
            "pie-clip-whole": self.agreement(edited, case.target),
            "pie-clip-edited": self.agreement(np.uint8(edited * mask), case.target) if mask.sum() else math.nan,
        }

    def cosine(self, picture: np.ndarray[Any, Any], prompt: str) -> float:
        """Pictures are prepared by Pillow, as transformers did when the evaluation was written."""
        small = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC)) / 255
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        pixels = torch.from_numpy((small - mean) / std).float().permute(2, 0, 1)[None]
        found = self.clip(pixel_values=pixels, input_ids=self.words(prompt, return_tensors="pt")["input_ids"])
        return float(found.logits_per_image / self.clip.logit_scale.exp())

    def agreement(self, picture: Any, prompt: str) -> float:
        return max(100 * self.cosine(picture, prompt), 0.0)

    def similarity(self, picture: np.ndarray[Any, Any]) -> Tensor:
        """Cosines of the last block's keys, of pixels from 0 to 255."""
        values = torch.from_numpy(np.transpose(picture.astype(np.float32), (2, 0, 1)))[None]
        prepare = transforms.Compose(
            [
                transforms.Resize(224, max_size=480, antialias=False),  # as torchvision 0.13.1, which the code names
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        before = self.vit(pixel_values=prepare(values), output_hidden_states=True).hidden_states[-2][0]
        last = [module for name, module in self.vit.named_modules() if name.endswith("layernorm_before")][-1]
        weights = [value for name, value in self.vit.state_dict().items() if ".key." in name or ".k_proj." in name][-2:]
        keys = nn.functional.linear(last(before), *weights)
        unit: Tensor = keys / keys.norm(dim=1, keepdim=True)
        return unit @ unit.T


def test_the_similarity_over_the_edges_too_is_that_of_torchmetrics_now() -> None:
    for case, result in list(zip(cases(), results(), strict=True))[:2]:
        assert case.mask is not None
        pair = [torch.tensor(as_file(one) / 255).permute(2, 0, 1)[None].float() for one in (case.picture, result.picture)]
        a, b = ((1 - case.mask) * one for one in pair)
        wanted = float(StructuralSimilarityIndexMeasure(data_range=1.0)(a, b))
        assert PieSSIM(edges="mirrored")(case, result) == pytest.approx(wanted, rel=1e-5)
        assert PieSSIM()(case, result) != pytest.approx(wanted, rel=1e-4)


@pytest.fixture
def metrics(clip: str, dino: str, random_trunks: Path) -> Mapping[str, Metric]:
    """The columns by name, over the random networks."""
    options = {"pie-structure": {"model": dino}, "pie-psnr": {}, "pie-mse": {}, "pie-ssim": {}, "pie-lpips": {"device": "cpu"}}
    options |= {f"pie-clip-{what}": {"model": clip} for what in ("whole", "edited", "source")}
    return {name: METRICS[name](**given) for name, given in options.items()}


def test_the_columns_are_those_of_the_evaluation(metrics: Mapping[str, Metric], clip: str, dino: str) -> None:
    evaluation = Evaluation(clip, dino)
    wanted = [evaluation.columns(case, result) for case, result in zip(cases(), results(), strict=True)]
    assert set(metrics) == set(wanted[0])
    for name, metric in metrics.items():
        finest = 1e-4 if "clip" in name else 1e-5 if "ssim" in name else 1e-7  # of a cosine, 1e-6
        found = metric.many(cases(), results())
        assert found == pytest.approx([one[name] for one in wanted], rel=1e-5, abs=finest, nan_ok=True), name
        assert len({round(score, 6) for score in found if not math.isnan(score)}) > 1, name  # they tell the cases apart


def test_a_score_does_not_depend_on_its_batch(metrics: Mapping[str, Metric]) -> None:
    for name, metric in metrics.items():
        alone = [metric(case, result) for case, result in zip(cases(), results(), strict=True)]
        assert metric.many(cases(), results()) == pytest.approx(alone, rel=1e-5, abs=1e-6, nan_ok=True), name


def test_what_a_full_or_an_empty_region_leaves_undefined(metrics: Mapping[str, Metric]) -> None:
    """The third mask is full, the last is empty."""
    undefined = {
        name: [place for place, score in enumerate(metric.many(cases(), results())) if math.isnan(score)]
        for name, metric in metrics.items()
    }
    assert undefined == {
        "pie-structure": [],
        "pie-psnr": [2],
        "pie-lpips": [2],
        "pie-mse": [2],
        "pie-ssim": [2],
        "pie-clip-whole": [],
        "pie-clip-edited": [4],
        "pie-clip-source": [],
    }


def test_clips_columns_end_at_zero(clip: str, dino: str) -> None:
    """A negative cosine is 0, as torchmetrics' CLIPScore has it."""
    evaluation = Evaluation(clip, dino)
    told: dict[float, float] = {}
    with torch.no_grad():
        for picture in pictures(5):
            for prompt in PROMPTS:
                cosine = evaluation.cosine(as_file(picture), prompt)
                told[100 * cosine] = PieClipWhole(clip)(Case("", picture, "", prompt), Result(picture, picture, picture))
    assert min(told) < -1
    assert max(told) > 1
    assert list(told.values()) == pytest.approx([max(score, 0.0) for score in told], abs=1e-4)


def shifted(by: float, mask: Tensor) -> tuple[Case, Result]:
    """A grey case, and a result that differs by the same everywhere outside of the region and wildly inside of it."""
    grey = torch.full((3, SIDE, SIDE), 0.2)
    wild = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    edited = (grey + by) * (1 - mask) + wild * mask
    return Case("grey", grey, "", "", region=mask), Result(edited, edited, edited)


@pytest.mark.parametrize("place", [0, 1, 3, 4])
def test_the_region_counts_as_pixels_without_error(place: int) -> None:
    """In closed form: of a share m that is masked and a difference d elsewhere, the MSE is (1 - m) d^2."""
    mask = masks()[place]
    case, result = shifted(0.4, mask)
    error = (1 - mask.mean().item()) * 0.4**2
    assert PieMSE()(case, result) == pytest.approx(error, rel=1e-5)
    assert PiePSNR()(case, result) == pytest.approx(-10 * math.log10(error), rel=1e-5)


def test_pictures_are_compared_as_files_hold_them(metrics: Mapping[str, Metric]) -> None:
    """Less than half of a level is no difference, and what is beyond the range is cut off."""
    for name, one, other in (("below half a level", 0.2, 0.2 + 0.4 / 255), ("out of range", 1.0, 1.3)):
        case = Case(name, torch.full((3, SIDE, SIDE), one), PROMPTS[0], PROMPTS[0], region=masks()[0])
        result = Result(torch.full((3, SIDE, SIDE), other), torch.zeros(1), torch.zeros(1))
        scores = {name: metrics[name](case, result) for name in metrics if "clip" not in name}
        equal = {"pie-structure": 0.0, "pie-psnr": 100.0, "pie-lpips": 0.0, "pie-mse": 0.0, "pie-ssim": 1.0}
        assert scores == pytest.approx(equal, abs=1e-6)
        assert metrics["pie-clip-whole"](case, result) == metrics["pie-clip-source"](case, result)


REGIONAL: Sequence[type[Metric]] = (PiePSNR, PieMSE, PieSSIM, PieLPIPS, PieClipEdited)
WHOLE: Sequence[type[Metric]] = (PieStructure, PieClipWhole, PieClipSource)


def test_what_they_suit() -> None:
    with_region = cases()[0]
    without = Case("plain", with_region.picture, "", "")
    points = Case("points", torch.zeros(9, 2), "", "", region=torch.ones(1, 3, 3))
    for kind in REGIONAL:
        assert [kind().suits(case) for case in (with_region, without, points)] == [True, False, False], kind
    for kind in WHOLE:
        assert [kind().suits(case) for case in (with_region, without, points)] == [True, True, False], kind
    tiny = Case("tiny", torch.zeros(3, 10, 40), "", "", region=torch.zeros(1, 10, 40))
    assert [kind().suits(tiny) for kind in (PieSSIM, PieLPIPS, PieMSE)] == [False, False, True]


@pytest.mark.parametrize("kind", REGIONAL)
def test_a_mask_of_another_size_is_refused(kind: type[Metric], random_trunks: Path) -> None:
    picture = torch.zeros(3, SIDE, SIDE)
    case = Case("bad", picture, "", "", region=torch.zeros(1, SIDE, SIDE // 2))
    with pytest.raises(ValueError, match=r"bad: a mask has the size of its picture, \(1, 96, 96\), got \(1, 96, 48\)"):
        kind()(case, Result(picture, picture, picture))


def test_what_is_missing_is_said_with_the_command_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: Mapping[str, Metric]
) -> None:
    assert {metric.missing() for metric in metrics.values()} == {""}
    assert "lacks config.json, model.safetensors" in PieStructure(str(tmp_path)).missing()
    assert "hf download facebook/dino-vitb8 " in PieStructure().missing()
    for kind in (PieClipWhole, PieClipEdited, PieClipSource):
        assert "tokenizer.json" in kind(str(tmp_path)).missing()
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert "squeezenet1_1" in PieLPIPS().missing()
    assert "curl" in PieLPIPS().missing()
