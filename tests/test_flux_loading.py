"""Loading FLUX models: what is saved comes back the same, and whatever is wrong is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fe.experiments.names import load_model
from fe.models.base import Setup
from fe.models.flux import FluxDevLoader, FluxLoader, FluxModel, FluxSchnellLoader
from fe.models.scenes import ScenesLoader, random_scenes
from fe.scenes.codec import PatchCodec
from fe.scenes.network import Shape, build_network, save_pipeline
from safetensors.torch import load_file, save_file

Change = Callable[[Path], object]
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def load(folder: Path | str, dtype: str = "float32") -> FluxModel:
    model = FluxLoader().load(str(folder), Setup(dtype=dtype))
    assert isinstance(model, FluxModel)
    return model


def test_a_saved_pipeline_comes_back_the_same(tiny_folder: Path, tiny_pipeline: Callable[..., Any]) -> None:
    model, original = load_model(f"flux:{tiny_folder}", Setup()), FluxModel(tiny_pipeline(guided=True))
    x = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = original.velocity(0.7, x, original.condition(["a red star"], 2.5))
        assert torch.equal(model.velocity(0.7, x, model.condition(["a red star"], 2.5)), expected)
        assert torch.equal(model.decode(x), original.decode(x))
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not model.network.training


def test_dtype_is_the_networks_and_the_codec_stays_exact(tiny_folder: Path) -> None:
    model = load(tiny_folder, "bfloat16")
    assert next(model.network.parameters()).dtype == torch.bfloat16
    assert model.pipeline.text_encoder_2.dtype == torch.bfloat16
    assert model.pipeline.vae.dtype == torch.float32


def index(**entries: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def truncate(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:1000])


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / TRANSFORMER)
    del weights["proj_out.bias"]
    save_file(weights, folder / TRANSFORMER, {"format": "pt"})


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "text_encoder/model.safetensors"), folder / "text_encoder/pytorch_model.bin")
    (folder / "text_encoder/model.safetensors").unlink()


def empty_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] = {word: i for word, i in tokenizer["model"]["vocab"].items() if i < 3}
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (index(vae=["os", "system"]), "the vae of the model .* is 'os:system'; it must be diffusers:AutoencoderKL or"),
        (index(transformer=["evil", "FluxTransformer2DModel"]), "is 'evil:FluxTransformer2DModel'; it must be"),
        (index(tokenizer=["transformers", "AutoTokenizer"]), "is 'transformers:AutoTokenizer'; it must be"),
        (index(text_encoder=None), "the text_encoder of the model .* is 'None'; it must be"),
        (index(_class_name="StableDiffusion3Pipeline"), "of class 'StableDiffusion3Pipeline', which this adapter cannot drive"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "is no table of parts"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "model_index.json").unlink(), "holds no model_index.json"),
        (truncate(TRANSFORMER), "cannot be loaded"),
        (truncate("text_encoder_2/model.safetensors"), "cannot be loaded"),
        (lambda folder: (folder / TRANSFORMER).unlink(), "no file named"),
        (drop_weight, "the weights of its transformer lack proj_out.bias"),
        (pickle_weights, "no file named model.safetensors"),
        (empty_tokenizer, "a tokenizer of the model .* knows 3 of"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused(change: Change, message: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    change(folder)
    with pytest.raises(ValueError, match=message) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


def test_what_is_not_there_is_said_with_the_command_that_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for loader, name in ((FluxDevLoader, "FLUX.1-dev"), (FluxSchnellLoader, "FLUX.1-schnell")):
        with pytest.raises(ValueError, match=f"`hf download black-forest-labs/{name}` fetches it"):
            loader().load(None, Setup(dtype="bfloat16"))
    with pytest.raises(ValueError, match="neither a folder nor a hub id"):
        load(tmp_path / "absent" / "deeper")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="neither a folder nor a hub id"):
        load(tmp_path / "file")
    with pytest.raises(ValueError, match="needs a folder or hub id"):
        FluxLoader().load(None, Setup())
    with pytest.raises(ValueError, match="must be one of float32, bfloat16, float16, got 'int8'"):
        load(tmp_path, "int8")


def test_a_scenes_model_loads_with_its_codec_and_vocabulary(tmp_path: Path) -> None:
    save_pipeline(build_network(Shape(32, 1, 1, 32)), PatchCodec(scaling_factor=0.7), tmp_path)
    model = ScenesLoader().load(str(tmp_path), Setup())
    assert isinstance(model.pipeline.vae, PatchCodec)
    assert (model.multiple, model.side) == (8, 64)
    latents = model.encode(torch.rand(2, 3, 64, 64))
    assert latents.shape == (2, 18, 16, 16)
    condition = model.condition(["a large red star at the left on a plain blue background"] * 2, 2.0)
    assert model.velocity(0.5, latents, condition).shape == latents.shape
    with pytest.raises(ValueError, match="does not know: 'dog'"):
        model.condition(["a dog"], 1.0)
    assert isinstance(load(tmp_path).pipeline.vae, PatchCodec)


def test_random_scenes_keeps_all_but_the_transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fe.scenes.network.WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="the weights of the scenes model are missing"):
        random_scenes(0)
    save_pipeline(build_network(Shape(32, 1, 1, 32)), PatchCodec(), tmp_path)
    trained = ScenesLoader().load(None, Setup())
    state = torch.random.get_rng_state()
    first, again, other = random_scenes(0), random_scenes(0), random_scenes(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    condition, x = trained.condition(["a red star"], 2.0), torch.randn(1, 18, 16, 16)
    velocities = [model.velocity(0.5, x, condition) for model in (trained, first, again, other)]
    assert torch.equal(velocities[1], velocities[2])
    assert not torch.equal(velocities[0], velocities[1])
    assert not torch.equal(velocities[1], velocities[3])
    assert torch.equal(first.condition(["a red star"], 2.0).prompt_embeds, condition.prompt_embeds)
    assert torch.equal(first.decode(x), trained.decode(x))
