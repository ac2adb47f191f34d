"""The generic adapter from folders: what is saved comes back the same, editors run on it from the command line, no code of
strangers is run, and whatever is wrong is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from click.testing import CliRunner
from fe.cli.main import main
from fe.experiments.names import load_model, model_kind
from fe.models.base import Setup
from fe.models.driven import DrivenModel
from fe.models.sd3 import SD3Model
from PIL import Image
from safetensors.torch import load_file, save_file

Change = Callable[[Path], object]
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
KINDS = ("lumina2", "qwen_image", "z_image", "sana", "aura_flow", "chroma", "cogview4", "flux2_klein")


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_a_saved_pipeline_comes_back_the_same(
    kinds: Callable[[str], Any], kind_folder: Callable[[str], Path], name: str
) -> None:
    """By its path alone: no other adapter knows it."""
    folder = str(kind_folder(name))
    assert model_kind(folder) == ("diffusers", folder)
    model, original = load_model(folder, Setup()), DrivenModel(kinds(name))
    assert model.usual_side == {"lumina2": 32, "aura_flow": 64, "cogview4": 64}.get(name, 1024)
    pictures = torch.rand(1, 3, 2 * model.multiple, 3 * model.multiple)
    x = original.encode(pictures)
    velocities = [each.velocity(0.7, x, each.condition(["a red circle"], 2.5)) for each in (model, original)]
    for found, expected in ((model.encode(pictures), x), velocities, (model.decode(x), original.decode(x))):
        # Weights lie elsewhere in memory once they are read from a file, which a processor's rounding may depend on.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_dtype_is_the_networks_and_the_codec_stays_exact(kind_folder: Callable[[str], Path]) -> None:
    model = load_model(f"diffusers:{kind_folder('sana')}", Setup(dtype="bfloat16"))
    assert isinstance(model, DrivenModel)
    assert model.dtype == model.pipeline.text_encoder.dtype == torch.bfloat16
    assert model.pipeline.vae.dtype == torch.float32
    assert model.setup == Setup(dtype="bfloat16")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    pixels = (torch.rand(64, 96, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return str(tmp_path / "noise.png")


@pytest.mark.parametrize("name", ["lumina2", "z_image"])
@pytest.mark.parametrize("method", [["--editor", "flowedit"], ["--editor", "inversion", "--solver", "fireflow"]])
def test_fe_edit_works_on_a_folder(
    kind_folder: Callable[[str], Path], picture: str, tmp_path: Path, name: str, method: list[str]
) -> None:
    folder = kind_folder(name)
    made = []
    for out, spec in (("alone", str(folder)), ("named", f"diffusers:{folder}")):
        words = ["edit", picture, "--source", "a red circle", "--target", "a blue square", *method, "--steps", "3"]
        run = CliRunner().invoke(main, [*words, "--model", spec, "--out", str(tmp_path / out)])
        assert run.exit_code == 0, run.output
        assert "calls" in run.output
        (result,) = (tmp_path / out).glob("*.png")
        made.append(Image.open(result))
    assert made[0].size == (96, 64)
    assert made[0].tobytes() == made[1].tobytes()
    assert made[0].tobytes() != Image.open(picture).tobytes()


def test_a_kind_with_an_adapter_of_its_own_may_be_driven_too(tiny_sd3_folder: Path, picture: str, tmp_path: Path) -> None:
    """And gives the same picture, up to a step of its 256."""
    made = []
    for kind in ("sd3", "diffusers"):
        words = ["edit", picture, "--source", "a red circle", "--target", "a blue square", "--steps", "3", "--side", "32"]
        run = CliRunner().invoke(main, [*words, "--model", f"{kind}:{tiny_sd3_folder}", "--out", str(tmp_path / kind)])
        assert run.exit_code == 0, run.output
        (result,) = (tmp_path / kind).glob("*.png")
        made.append(torch.frombuffer(bytearray(Image.open(result).tobytes()), dtype=torch.uint8).int())
    assert (made[0] - made[1]).abs().max() <= 1
    assert isinstance(load_model(str(tiny_sd3_folder), Setup()), SD3Model)


def index(**entries: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / TRANSFORMER)
    del weights["norm_out.linear_2.bias"]
    save_file(weights, folder / TRANSFORMER, {"format": "pt"})


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "text_encoder/model.safetensors"), folder / "text_encoder/pytorch_model.bin")
    (folder / "text_encoder/model.safetensors").unlink()


def empty_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] = {word: i for word, i in tokenizer["model"]["vocab"].items() if i < 3}
    path.write_text(json.dumps(tokenizer))


def strangers_code(folder: Path) -> None:
    """A module beside the weights, as custom pipelines and parts bring them; it would tell that it ran."""
    (folder / "transformer/evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    index(transformer=["evil", "Evil"])(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (strangers_code, "the transformer of the model .* is evil:Evil, which is no network, scheduler or tokenizer"),
        (index(vae=["os", "system"]), "the vae of the model .* is os:system, which is no network"),
        (index(vae=["transformers", "pipeline"]), "is transformers:pipeline, which is no network"),
        (index(vae=["diffusers", "Lumina2Pipeline"]), "is diffusers:Lumina2Pipeline, which is no network"),
        (index(tokenizer=["transformers", "AutoTokenizer"]), "is transformers:AutoTokenizer, which is no network"),
        (index(vae=["diffusers", "NoSuchCodec"]), "is diffusers:NoSuchCodec, which is no network"),
        (index(_class_name=["pipeline", "Mine"]), r"of class \['pipeline', 'Mine'\], which is no pipeline of the installed"),
        (index(_class_name="AutoencoderKL"), "of class 'AutoencoderKL', which is no pipeline of the installed"),
        (index(_class_name="NoSuchPipeline"), "of class 'NoSuchPipeline', which is no pipeline of the installed"),
        (index(transformer=[None, None]), "Lumina2Pipeline has 0 denoising networks"),
        (index(vae=None), "cannot be loaded .*'vae'"),
        (index(vae="evil"), "cannot be loaded .*'vae'"),
        (index(scheduler=["diffusers", "EulerDiscreteScheduler"]), "is no flow: a Lumina2Pipeline with a EulerDiscrete"),
        (lambda folder: (folder / "model_index.json").unlink(), "holds no model_index.json"),
        (lambda folder: (folder / TRANSFORMER).unlink(), "no file named"),
        (lambda folder: (folder / TRANSFORMER).write_bytes(b"short"), "cannot be loaded"),
        (drop_weight, "the weights of its transformer lack norm_out.linear_2.bias"),
        (pickle_weights, "no file named model.safetensors"),
        (empty_tokenizer, "a tokenizer of the model .* knows 3 of 15 tokens"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused(
    change: Change, message: str, kind_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(kind_folder("lumina2"), folder)
    change(folder)
    with pytest.raises(ValueError, match=message) as refusal:
        load_model(f"diffusers:{folder}", Setup())
    assert "\n" not in str(refusal.value)
    assert not (folder / "ran").exists()


def test_what_a_setup_asks_for_and_cannot_be_had_is_said(
    kind_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="write diffusers:FOLDER or diffusers:OWNER/NAME"):
        load_model("diffusers", Setup())
    with pytest.raises(ValueError, match="`hf download some/model` fetches it"):
        load_model("diffusers:some/model", Setup())
    with pytest.raises(ValueError, match="this loader needs trained ones"):
        load_model(str(kind_folder("lumina2")), Setup(weights="random"))


def test_a_diffusion_model_is_refused_by_the_command_line(tmp_path: Path, picture: str) -> None:
    """SDXL, told from its index alone: before a byte of its weights is read."""
    scheduler = diffusers.EulerDiscreteScheduler()
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet")
    diffusers.StableDiffusionXLPipeline(**dict.fromkeys(parts), scheduler=scheduler).save_pretrained(tmp_path / "sdxl")
    words = ["edit", picture, "--source", "a", "--target", "b", "--model", str(tmp_path / "sdxl"), "--out", str(tmp_path)]
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 2
    assert run.stderr.startswith("fe: the model")
    assert "is no flow: a StableDiffusionXLPipeline with a EulerDiscreteScheduler" in run.stderr
