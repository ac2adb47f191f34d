"""Loading SD3 models: what is saved comes back the same, T5 may be absent, and whatever is wrong is one sentence."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from fe.experiments.names import load_model, model_kind
from fe.models.base import Setup
from fe.models.sd3 import SD3Loader, SD3Model
from fe.scenes.codec import PatchCodec
from safetensors.torch import load_file, save_file

Change = Callable[[Path], object]
Pipelines = Callable[..., StableDiffusion3Pipeline]
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def load(folder: Path | str, dtype: str = "float32") -> SD3Model:
    model = SD3Loader().load(str(folder), Setup(dtype=dtype))
    assert isinstance(model, SD3Model)
    return model


@pytest.mark.parametrize(("dual", "t5"), [(False, True), (True, True), (False, False)])
@torch.no_grad()
def test_a_saved_pipeline_comes_back_the_same(dual: bool, t5: bool, tiny_sd3: Pipelines, tmp_path: Path) -> None:
    pipeline = tiny_sd3(dual=dual, t5=t5)
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert (index["text_encoder_3"] == [None, None]) == (not t5)
    original, x = SD3Model(pipeline), torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    expected = original.velocity(0.7, x, original.condition(["a red star"], 2.5))
    for spec in (f"sd3:{tmp_path}", str(tmp_path)):
        model = load_model(spec, Setup())
        assert isinstance(model, SD3Model)
        assert torch.equal(model.velocity(0.7, x, model.condition(["a red star"], 2.5)), expected)
        assert torch.equal(model.decode(x), original.decode(x))
        assert model.points().keys() == original.points().keys()
        assert not any(parameter.requires_grad for parameter in model.network.parameters())
        assert not model.network.training


def test_dtype_is_the_networks_and_the_codec_stays_exact(tiny_sd3_folder: Path) -> None:
    pipeline = load(tiny_sd3_folder, "bfloat16").pipeline
    networks = (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3)
    assert {network.dtype for network in networks} == {torch.bfloat16}
    assert pipeline.vae.dtype == torch.float32


def test_the_plain_grid_is_an_option_of_the_model(tiny_sd3_folder: Path) -> None:
    spec, shape = str(tiny_sd3_folder), (1, 4, 8, 8)
    assert load_model(spec, Setup()).grid(2, shape).times == pytest.approx([1.0, 0.00895, 0.0], abs=1e-4)
    assert load_model(spec, Setup(), {"shift-twice": "false"}).grid(2, shape).times == pytest.approx([1.0, 0.75, 0.0])


def index(**entries: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def truncate(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:1000])


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def drop_weight(part: str, name: str) -> Change:
    def change(folder: Path) -> None:
        (path,) = (folder / part).glob("*.safetensors")
        weights = load_file(path)
        del weights[name]
        save_file(weights, path, {"format": "pt"})

    return change


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "text_encoder/model.safetensors"), folder / "text_encoder/pytorch_model.bin")
    (folder / "text_encoder/model.safetensors").unlink()


def empty_tokenizer(name: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / name / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        tokenizer["model"]["vocab"] = {word: i for word, i in tokenizer["model"]["vocab"].items() if i < 3}
        path.write_text(json.dumps(tokenizer))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (index(vae=["os", "system"]), "the vae of the model .* is 'os:system'; it must be diffusers:AutoencoderKL or"),
        (index(transformer=["evil", "SD3Transformer2DModel"]), "is 'evil:SD3Transformer2DModel'; it must be"),
        (index(text_encoder_2=["transformers", "CLIPTextModel"]), "is 'transformers:CLIPTextModel'; it must be"),
        (index(text_encoder_3=["transformers", "UMT5EncoderModel"]), "is 'transformers:UMT5EncoderModel'; it must be"),
        (index(tokenizer_2=["transformers", "AutoTokenizer"]), "is 'transformers:AutoTokenizer'; it must be"),
        (index(text_encoder=[None, None]), "the text_encoder of the model .* is 'None:None'; it must be"),
        (index(scheduler=["diffusers", "DDIMScheduler"]), "the scheduler of the model .* is 'diffusers:DDIMScheduler'"),
        (index(_class_name="FluxPipeline"), "of class 'FluxPipeline', which this adapter cannot drive; it needs 'StableDiff"),
        (remove("model_index.json"), "holds no model_index.json"),
        (truncate(TRANSFORMER), "cannot be loaded"),
        (truncate("text_encoder_3/model.safetensors"), "cannot be loaded"),
        (remove(TRANSFORMER), "no file named"),
        (remove("vae/diffusion_pytorch_model.safetensors"), "no file named"),
        (drop_weight("transformer", "proj_out.bias"), "the weights of its transformer lack proj_out.bias"),
        (drop_weight("text_encoder_2", "text_projection.weight"), "the weights of its text_encoder_2 lack text_projection"),
        (pickle_weights, "no file named model.safetensors"),
        (empty_tokenizer("tokenizer_2"), "a tokenizer of the model .* knows 3 of"),
        (empty_tokenizer("tokenizer_3"), "a tokenizer of the model .* knows 3 of"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused(change: Change, message: str, tiny_sd3_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_sd3_folder, folder)
    change(folder)
    with pytest.raises(ValueError, match=message) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


@torch.no_grad()
def test_a_patch_codec_is_allowed(tiny_sd3: Pipelines, tmp_path: Path) -> None:
    parts = tiny_sd3().components
    wide = SD3Transformer2DModel.from_config(parts["transformer"].config, in_channels=16, out_channels=16)
    changed = {**parts, "transformer": wide, "vae": PatchCodec(latent_channels=16, scaling_factor=0.7)}
    StableDiffusion3Pipeline(**changed).save_pretrained(tmp_path)
    model = load(tmp_path)
    assert isinstance(model.pipeline.vae, PatchCodec)
    assert model.multiple == 8
    latents = model.encode(torch.rand(1, 3, 16, 24))
    assert latents.shape == (1, 16, 4, 6)
    assert model.velocity(0.5, latents, model.condition(["a red star"], 2.0)).shape == latents.shape


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("sd3-medium", "stabilityai/stable-diffusion-3-medium-diffusers"),
        ("sd3.5-medium", "stabilityai/stable-diffusion-3.5-medium"),
        ("sd3.5-large", "stabilityai/stable-diffusion-3.5-large"),
    ],
)
def test_what_is_not_there_is_said_at_once_with_the_command_that_fetches_it(
    name: str, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert model_kind(name) == (name, None)
    started = time.perf_counter()
    with pytest.raises(ValueError, match=f"'{home}' is not on this machine; `hf download {home}` fetches it") as refusal:
        load_model(name, Setup())
    assert time.perf_counter() - started < 2  # no retries
    assert "\n" not in str(refusal.value)


def test_the_kind_alone_names_no_model() -> None:
    with pytest.raises(ValueError, match="needs a folder or hub id"):
        SD3Loader().load(None, Setup())
