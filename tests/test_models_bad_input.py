"""Models that cannot be had or driven: one sentence that says why, soon, and without asking anybody on the network."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fe.experiments.names import load_model
from fe.models.base import Setup
from fe.models.prompts import check_tokens
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

HUB_ID = "black-forest-labs/FLUX.1-dev"
SDXL = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def refusal(spec: str) -> str:
    with pytest.raises(ValueError, match=r".") as refused:
        load_model(spec, Setup())
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("kind", ["", "flux:", "sd3:", "2rf:", "diffusers:"])
def test_a_folder_without_an_index(kind: str, tmp_path: Path) -> None:
    said = refusal(f"{kind}{tmp_path}")
    assert said == f"the folder {str(tmp_path)!r} holds no model_index.json; save a pipeline there with its save_pretrained"


@pytest.mark.parametrize("kind", ["", "flux:", "sd3:", "2rf:", "diffusers:"])
def test_a_diffusion_model_is_refused_with_the_reason_before_its_weights_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps(SDXL))
    said = refusal(f"{kind}{tmp_path}")
    assert "StableDiffusionXLPipeline with a EulerDiscreteScheduler" in said
    assert "predicts noise on a variance-preserving schedule, not a velocity" in said


@pytest.mark.parametrize(
    ("pipeline", "reason"),
    [("WanPipeline", "WanPipeline makes videos"), ("FluxFillPipeline", "FluxFillPipeline needs 'image' beside the prompt")],
)
def test_other_work_is_refused_before_the_weights_are_read(pipeline: str, reason: str, tmp_path: Path) -> None:
    index = {"_class_name": pipeline, "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert refusal(str(tmp_path)) == f"{reason}; only text-to-image pipelines can be driven"


def test_what_may_be_a_flow_is_not_refused_by_its_index(tmp_path: Path) -> None:
    """Sana walks a flow with the scheduler of diffusion models; it is only its files that are missing here."""
    index = {"_class_name": "SanaPipeline", "scheduler": ["diffusers", "DPMSolverMultistepScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert "variance-preserving" not in refusal(str(tmp_path))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Who tried to reach the network; nobody is let out, and the libraries are not told to stay offline."""
    tried: list[Any] = []

    def refuse(*where: Any) -> None:
        tried.append(where)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    agents = "huggingface_hub.utils._detect_agent"  # not in versions of transformers 4's time
    if find_spec(agents) is not None:
        monkeypatch.setattr(f"{agents}._registry", None, raising=False)  # what it asked for before
    return tried


def timed(spec: str) -> tuple[str, float]:
    started = time.perf_counter()
    return refusal(spec), time.perf_counter() - started


@pytest.mark.parametrize("name", ["flux-dev", "sd3.5-medium", "2rf", HUB_ID, f"flux:{HUB_ID}", f"diffusers:{HUB_ID}"])
def test_missing_weights_are_said_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[Any]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said, seconds = timed(name)
    assert "is not on this machine; `hf download " in said
    assert seconds < 2.0
    assert no_network == []


@pytest.fixture
def cached(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy pipeline as a hub's download leaves it: the folder of its files, found under HUB_ID."""
    repository = tmp_path / f"models--{HUB_ID.replace('/', '--')}"
    snapshot = repository / "snapshots" / "0123456789"
    shutil.copytree(tiny_folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return snapshot


def test_a_download_is_found_without_the_network(cached: Path, no_network: list[Any]) -> None:
    assert load_model("flux-dev", Setup()).trained
    assert no_network == []


@pytest.mark.parametrize(
    "part", ["transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"]
)
def test_a_download_that_was_cut_short(part: str, cached: Path, no_network: list[Any]) -> None:
    shutil.rmtree(cached / part)
    said, seconds = timed("flux-dev")
    assert f"`hf download {HUB_ID}` fetches what is missing" in said
    assert seconds < 2.0
    assert no_network == []


def other_words(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        vocabulary = tokenizer["model"]["vocab"]
        tokenizer["model"]["vocab"] = {word if i < 3 else f"{word}ish": i for word, i in vocabulary.items()}
        path.write_text(json.dumps(tokenizer))

    return change


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_a_model_whose_tokenizer_knows_no_word_is_refused(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    other_words(name)(folder)
    model = load_model(f"flux:{folder}", Setup())
    with pytest.raises(ValueError, match="the model's tokenizer knows no word of the prompt 'a red star'"):
        model.condition(["a red star"], 1.0)


def t5(words: Sequence[str], folder: Path) -> Any:
    """A tokenizer as T5's: pieces with their probabilities, a mark before every word; through its file."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), *((f"▁{word}", -2.0) for word in words), (",", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    marks = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def clip(words: Sequence[str], folder: Path) -> Any:
    """A tokenizer as CLIP's: letters merged into words, and the end of the text as the unknown token; through its file."""
    letters = sorted({letter for word in words for letter in word})
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    model = models.BPE(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], unk_token="<|endoftext|>", end_of_word_suffix="</w>"
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "bos_token": "<|startoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("build", [t5, clip])
def test_prompts_of_unknown_words_alone_are_refused(build: Callable[..., Any], tmp_path: Path) -> None:
    tokenizer = build(["a", "red", "star"], tmp_path)
    check_tokens(tokenizer, ["a red star", "a red 物", "a", "", " "], 77)
    for prompt in ("物", "物 件", "ЖЖ, ЩЩ", "物 " * 20):
        with pytest.raises(ValueError, match="the model's tokenizer knows no word of the prompt"):
            check_tokens(tokenizer, ["a red star", prompt], 77)


@pytest.mark.parametrize(("spec", "message"), [("flux-dev", "is not on this machine"), ("{folder}", "variance-preserving")])
def test_the_command_says_it_in_one_line(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[Any]
) -> None:
    from click.testing import CliRunner
    from fe.cli.main import main

    (tmp_path / "model_index.json").write_text(json.dumps(SDXL))
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    words = ["edit", str(tmp_path / "x.png"), "--source", "a", "--target", "b", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*words, "--model", spec.format(folder=tmp_path)])
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert no_network == []
