"""DINO similarity on tiny random networks, against transformers' own output on pictures that were prepared by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fe.cases.base import Case
from fe.metrics.base import Result
from fe.metrics.dino import Dino, load_dino
from fe.metrics.networks import CHUNK
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model, PreTrainedModel, ViTConfig, ViTModel

SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CPU = torch.device("cpu")


def build_vit(side: int) -> ViTModel:
    return ViTModel(ViTConfig(**SIZE, image_size=side, patch_size=16), add_pooling_layer=False)


def build_dinov2() -> Dinov2Model:
    return Dinov2Model(Dinov2Config(**SIZE, image_size=70, patch_size=14))


BUILT: dict[str, Callable[[], PreTrainedModel]] = {
    "DINO": lambda: build_vit(224),
    "DINO of other sizes": lambda: build_vit(96),
    "DINOv2": build_dinov2,
}


def save(network: PreTrainedModel, folder: Path) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for weight in (weight for weight in network.parameters() if weight.ndim > 1):  # as drawn, all pictures look alike
            nn.init.normal_(weight, std=0.3)
    network.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=BUILT)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A network of each kind in a folder of its own."""
    return save(BUILT[request.param](), tmp_path / "network")


def pictures(count: int, height: int = 60, width: int = 90) -> list[Tensor]:
    drawn = torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(count))
    return list(nn.functional.interpolate(drawn, (height, width), mode="bilinear"))


def cases(sources: list[Tensor]) -> list[Case]:
    return [Case(f"case {i}", picture, "", "") for i, picture in enumerate(sources)]


def results(edited: list[Tensor]) -> list[Result]:
    return [Result(picture, picture, picture) for picture in edited]


def prepared(picture: Tensor) -> Tensor:
    """A picture 60 high and 90 wide as the file that it would be, resized and cut by hand: (1, 3, 224, 224)."""
    image = Image.fromarray((picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    cut = image.resize((336, 224), Image.Resampling.BICUBIC).crop((56, 0, 280, 224))
    values = (np.asarray(cut, dtype=np.float64) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return torch.from_numpy(values).permute(2, 0, 1)[None].float()


def reference(folder: str, picture: Tensor) -> Tensor:
    """The CLS token by the plain way to compute attention."""
    pixels = prepared(picture)
    with torch.no_grad():
        if "Dinov2" in (Path(folder) / "config.json").read_text():
            network = Dinov2Model.from_pretrained(folder, attn_implementation="eager").eval()
            pooled: Tensor = network(pixels).pooler_output[0]
            return pooled
        network = ViTModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").eval()
        first: Tensor = network(pixels, interpolate_pos_encoding=network.config.image_size != 224).last_hidden_state[0, 0]
        return first


def test_it_is_the_cosine_of_the_cls_tokens(folder: str) -> None:
    sources, edited = pictures(3), pictures(4)[:3]
    wanted = [
        torch.cosine_similarity(reference(folder, a), reference(folder, b), dim=0).item()
        for a, b in zip(sources, edited, strict=True)
    ]
    assert max(wanted) < 0.99
    assert max(wanted) - min(wanted) > 0.01
    metric = Dino(folder, "cpu")
    assert metric.missing() == ""
    assert metric.many(cases(sources), results(edited)) == pytest.approx(wanted, abs=1e-5)
    assert metric(cases(sources)[2], results(edited)[2]) == pytest.approx(wanted[2], abs=1e-5)


def test_a_picture_is_like_itself(folder: str) -> None:
    same = pictures(2)
    assert Dino(folder, "cpu").many(cases(same), results(same)) == pytest.approx([1, 1], abs=1e-6)


def test_a_batch_gives_what_one_by_one_gives(tmp_path: Path) -> None:
    folder = save(build_vit(224), tmp_path / "network")
    for name in ("together", "alone"):  # two names: nothing that was kept of one is found for the other
        (tmp_path / name).symlink_to(folder)
    count = CHUNK + 2
    sources, edited = pictures(count), pictures(count + 1)[:count]
    sources[1], edited[2] = pictures(1, 64, 40)[0], pictures(1, 33, 90)[0]  # of other sizes
    together = Dino(str(tmp_path / "together"), "cpu").many(cases(sources), results(edited))
    lone = Dino(str(tmp_path / "alone"), "cpu")
    alone = [lone(case, result) for case, result in zip(cases(sources), results(edited), strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == count


def test_a_source_is_looked_at_once(tmp_path: Path) -> None:
    folder = save(build_vit(96), tmp_path / "network")
    sources, seen = [(picture * 255).round() / 255 for picture in pictures(3)], []
    hook = load_dino(folder, CPU).register_forward_hook(lambda module, inputs, output: seen.append(len(output[0])))
    for row in range(4, 7):
        Dino(folder, "cpu").many(cases(sources), results(pictures(row)[:3]))
    assert seen == [3, 3, 3, 3]  # the sources, then the edited ones of each row
    Dino(folder, "cpu").many(cases([sources[0], sources[0]]), results([sources[0] + 1e-4, 1 - sources[0]]))
    assert seen[4:] == [1]  # what is the same in 8 bits is the same picture
    hook.remove()


def test_other_networks_are_refused(tmp_path: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(**SIZE, image_size=32, patch_size=8)).save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match="it is of the kind clip_vision_model, where one of vit, dinov2"):
        Dino(str(tmp_path / "clip"), "cpu").many(cases(pictures(1)), results(pictures(1)))


def test_weights_that_are_not_here_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **named: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    assert "hf download facebook/dino-vitb8 config.json model.safetensors" in Dino().missing()
    with pytest.raises(
        ValueError, match="facebook/dinov2-base is not on this machine; fetch it with: hf download facebook/dinov2"
    ):
        Dino("facebook/dinov2-base", "cpu").many(cases(pictures(1)), results(pictures(1)))


def test_pictures_only_and_no_device_in_what_is_measured() -> None:
    assert not Dino().suits(Case("points", torch.zeros(4, 2), "", ""))
    assert Dino().suits(cases(pictures(1))[0])
    assert repr(Dino("a/b", "cuda")) == repr(Dino("a/b")) != repr(Dino("a/c"))
    with pytest.raises(ValueError, match="'gpu' is no device; auto, cpu, cuda or cuda:1 will do"):
        Dino(device="gpu").many(cases(pictures(1)), results(pictures(1)))
