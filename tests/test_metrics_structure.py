"""PIE-Bench's structure distance against a vision transformer that is written out here, fed from a file with the names of
weights that DINO is published under: the file, the resize, the network, its keys and their cosines all by another way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fe.cases.base import Case
from fe.metrics.base import Result
from fe.metrics.dino import load_dino, run_dino
from fe.metrics.networks import CHUNK
from fe.metrics.structure import StructureDistance, cosine_matrix, last_keys, structure_distance
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

WIDTH, HEADS, LAYERS, PATCH = 24, 3, 2, 8
CPU = torch.device("cpu")


def published_names() -> dict[str, tuple[int, ...]]:
    """The weights of a ViT by the names in DINO's published file, with their shapes."""
    names: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, 1 + (224 // PATCH) ** 2, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    square = {f"attention.attention.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
    matrices = {**square, "attention.output.dense": (WIDTH, WIDTH)}
    matrices |= {"intermediate.dense": (2 * WIDTH, WIDTH), "output.dense": (WIDTH, 2 * WIDTH)}
    for layer in range(LAYERS):
        for name, shape in matrices.items():
            names |= {f"encoder.layer.{layer}.{name}.weight": shape, f"encoder.layer.{layer}.{name}.bias": shape[:1]}
        for name in ("layernorm_before", "layernorm_after"):
            names |= {f"encoder.layer.{layer}.{name}.{end}": (WIDTH,) for end in ("weight", "bias")}
    return names


@pytest.fixture(scope="module")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino") / "tiny"
    folder.mkdir()
    config = {"model_type": "vit", "architectures": ["ViTModel"], "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH}
    config |= {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "image_size": 224, "patch_size": PATCH}
    config |= {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True, "num_channels": 3}
    (folder / "config.json").write_text(json.dumps(config))
    draw = torch.Generator().manual_seed(2)
    weights = {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in published_names().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def folder(tiny_dino: Path, tmp_path: Path) -> str:
    """The same under a name of its own, so that nothing is kept of it from other tests."""
    link = tmp_path / "dino"
    link.symlink_to(tiny_dino)
    return str(link)


def by_hand(folder: str, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens (T, WIDTH) and the last block's keys (T, WIDTH) of pixels (3, H, W), in float64."""
    weights = {name: weight.double() for name, weight in load_file(Path(folder) / "model.safetensors").items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normed(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        return centred / centred.square().mean(dim=1, keepdim=True).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    name = "embeddings.patch_embeddings.projection"
    patches = functional.conv2d(pixels.double()[None], weights[f"{name}.weight"], weights[f"{name}.bias"], stride=PATCH)
    rows, columns = patches.shape[2:]
    places = weights["embeddings.position_embeddings"][0]
    side = 224 // PATCH
    if (rows, columns) != (side, side):
        grid = places[1:].reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        places = torch.cat((places[:1], grid.permute(0, 2, 3, 1).reshape(-1, WIDTH)))
    x = torch.cat((weights["embeddings.cls_token"][0], patches[0].flatten(1).T)) + places
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        inner = normed(x, f"{layer}.layernorm_before")
        query, key, value = (linear(inner, f"{layer}.attention.attention.{part}") for part in ("query", "key", "value"))
        each = WIDTH // HEADS
        seen = [
            (query[:, cut] @ key[:, cut].T / each**0.5).softmax(dim=1) @ value[:, cut]
            for cut in (slice(first, first + each) for first in range(0, WIDTH, each))
        ]
        x = x + linear(torch.cat(seen, dim=1), f"{layer}.attention.output.dense")
        wide = linear(normed(x, f"{layer}.layernorm_after"), f"{layer}.intermediate.dense")
        x = x + linear(wide * (1 + torch.erf(wide / 2**0.5)) / 2, f"{layer}.output.dense")
    return normed(x, "layernorm"), key


def prepared(picture: Tensor, size: tuple[int, int], scale: float, smooth: bool) -> Tensor:
    """8-bit pixels from 0 to `scale`, resized to `size` and normalised: (3, *size)."""
    values = (picture * 255).round() / 255 * scale
    small = functional.interpolate(values[None], size, mode="bilinear", antialias=smooth)[0]
    return (small - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) / torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)


def reference(folder: str, a: Tensor, b: Tensor, size: tuple[int, int], scale: float, smooth: bool) -> float:
    matrices = []
    for picture in (a, b):
        _, key = by_hand(folder, prepared(picture, size, scale, smooth))
        unit = key / key.square().sum(dim=1, keepdim=True).sqrt()
        matrices.append(unit @ unit.T)
    return (matrices[0] - matrices[1]).square().mean().item()


def pictures(count: int, height: int = 56, width: int = 56) -> list[Tensor]:
    drawn = torch.rand(count, 3, 7, 5, generator=torch.Generator().manual_seed(count))
    return list(functional.interpolate(drawn, (height, width), mode="bilinear"))


def cases(sources: list[Tensor]) -> list[Case]:
    return [Case(f"case {i}", picture, "", "") for i, picture in enumerate(sources)]


def results(edited: list[Tensor]) -> list[Result]:
    return [Result(picture, picture, picture) for picture in edited]


@pytest.mark.parametrize("size", [(224, 224), (224, 312)], ids=["its own size", "wider"])
def test_the_published_file_is_read_as_the_network_it_is(folder: str, size: tuple[int, int]) -> None:
    pixels = prepared(pictures(1)[0], size, 1.0, True)
    tokens, key = by_hand(folder, pixels)
    network = load_dino(folder, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(run_dino(network, pixels[None])[0], tokens.float(), atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(last_keys(network, pixels[None])[0], key.float(), atol=2e-5, rtol=1e-5)
    assert len(tokens) == 1 + size[0] * size[1] // PATCH**2
    assert not network._forward_hooks
    assert not any(module._forward_hooks for module in network.modules())


SHAPES = {
    "square": ((56, 56), (224, 224)),
    "larger, as photographs are": ((384, 384), (224, 224)),
    "wide": ((40, 60), (224, 336)),
    "tall, with a part of a patch": ((60, 43), (312, 224)),
    "so wide that the longer side is held": ((30, 90), (160, 480)),
}


@pytest.mark.parametrize(("scale", "resize"), [("255", "plain"), ("1", "plain"), ("255", "antialiased")])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_what_the_hand_finds(folder: str, shape: str, scale: str, resize: str) -> None:
    (height, width), size = SHAPES[shape]
    a, b = pictures(1, height, width)[0], torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    wanted = reference(folder, a, b, size, float(scale), resize == "antialiased")
    found = structure_distance(a, b, model=folder, scale=scale, resize=resize, device="cpu")
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert wanted > 1e-3
    metric = StructureDistance(folder, "cpu", scale, resize)
    assert metric(cases([a])[0], results([b])[0]) == pytest.approx(found, abs=1e-7)


def test_the_range_of_pixels_matters(folder: str) -> None:
    a, b = pictures(2)
    assert StructureDistance().scale == "255"
    quirk, plain = (structure_distance(a, b, model=folder, scale=scale, device="cpu") for scale in ("255", "1"))
    assert abs(quirk - plain) > 0.1 * plain
    with pytest.raises(ValueError, match="scale must be one of 255, 1, got '2'"):
        StructureDistance(scale="2")


def test_smoothing_matters_where_pictures_are_made_smaller(folder: str) -> None:
    a, b = (torch.rand(3, 384, 384, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert StructureDistance().resize == "plain"
    plain, smooth = (structure_distance(a, b, model=folder, resize=resize, device="cpu") for resize in ("plain", "antialiased"))
    assert abs(plain - smooth) > 0.1 * plain


def test_pictures_of_other_sizes_with_the_same_pixels_are_not_taken_for_each_other(folder: str) -> None:
    wide = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    tall, other = wide.reshape(3, 60, 40), torch.rand(3, 60, 40, generator=torch.Generator().manual_seed(1))
    structure_distance(wide, wide, model=folder, device="cpu")
    found = structure_distance(other, tall, model=folder, device="cpu")
    assert found == pytest.approx(reference(folder, other, tall, (336, 224), 255.0, False), rel=1e-4)


def test_the_cosines_of_keys() -> None:
    keys = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [0.0, 0.0]]])
    half = 0.5**0.5
    wanted = torch.tensor([[[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]])
    torch.testing.assert_close(cosine_matrix(keys), wanted)


def test_a_picture_has_no_distance_from_itself(folder: str) -> None:
    [a, b] = pictures(2)
    assert structure_distance(a, a, model=folder, device="cpu") == 0
    there, back = (structure_distance(*pair, model=folder, device="cpu") for pair in ((a, b), (b, a)))
    assert there == pytest.approx(back, rel=1e-6)


def test_a_batch_gives_what_one_by_one_gives(tiny_dino: Path, tmp_path: Path) -> None:
    for name in ("together", "alone"):  # two names: nothing that was kept of one is found for the other
        (tmp_path / name).symlink_to(tiny_dino)
    sources, edited = pictures(5), pictures(6)[:5]
    sources[1], edited[1] = pictures(2, 40, 60)  # of another size
    assert CHUNK > 5  # so that the squares on both sides of it go in together or apart, as they come
    together = StructureDistance(str(tmp_path / "together"), device="cpu").many(cases(sources), results(edited))
    lone = StructureDistance(str(tmp_path / "alone"), device="cpu")
    alone = [lone(case, result) for case, result in zip(cases(sources), results(edited), strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 5


def test_a_source_is_looked_at_once_for_all_rows(folder: str) -> None:
    sources, seen = pictures(2), []
    hook = load_dino(folder, CPU).register_forward_hook(lambda module, inputs, output: seen.append(len(output[0])))
    for row in range(3, 6):
        StructureDistance(folder, device="cpu").many(cases(sources), results(pictures(row)[:2]))
    assert seen == [2, 2, 2, 2]
    StructureDistance(folder, "cpu", "1").many(cases(sources), results(sources))
    assert seen[4:] == [2]  # other pixels went in: nothing that was kept serves
    hook.remove()


def test_pictures_of_other_sizes_are_not_compared(folder: str) -> None:
    with pytest.raises(ValueError, match="compares pictures of one size"):
        structure_distance(torch.rand(3, 56, 56), torch.rand(3, 56, 57), model=folder, device="cpu")


def test_weights_that_are_not_here_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "hf download facebook/dino-vitb8 config.json model.safetensors" in StructureDistance().missing()
    assert not StructureDistance().suits(Case("points", torch.zeros(4, 2), "", ""))
    assert repr(StructureDistance(device="cpu")) == repr(StructureDistance()) != repr(StructureDistance(scale="1"))
