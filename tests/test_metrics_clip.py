"""CLIP-T and CLIP-I on a tiny random CLIP, against transformers' own forward pass on pictures that were prepared by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from fe.cases.base import Case
from fe.cli.main import main
from fe.metrics.base import Result
from fe.metrics.clip import Clip, ClipI, ClipT
from fe.metrics.networks import CHUNK
from PIL import Image
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
SIDE, TOKENS = 32, 16
PROMPTS = ("a photo", "a cat, a dog", "red!")


def write_tokenizer(folder: Path) -> None:
    """CLIP's own kind of tokenizer, with every byte and a few words: files as the hub has them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("p", "h")]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "unk_token": END, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": START, "eos_token": END}))
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)  # adds tokenizer.json


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of toy size with random weights, as a folder that looks like the hub's."""
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    folder.mkdir()
    write_tokenizer(folder)
    words = len(json.loads((folder / "vocab.json").read_text()))
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 24}
    ends = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    text = {**size, **ends, "vocab_size": words, "max_position_embeddings": TOKENS}
    config = CLIPConfig(text_config=text, vision_config={**size, "image_size": SIDE, "patch_size": 8}, projection_dim=24)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CLIPModel(config)
        for weight in (weight for weight in network.parameters() if weight.ndim > 1):  # as drawn, all pictures look alike
            nn.init.normal_(weight, std=0.3)
        network.logit_scale.data.fill_(1.3)
    network.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tiny_clip: Path, tmp_path: Path) -> str:
    """The same under a name of its own, so that nothing is kept of it from other tests."""
    link = tmp_path / "clip"
    link.symlink_to(tiny_clip)
    return str(link)


def pictures(count: int, height: int = 40, width: int = 56) -> list[Tensor]:
    """Smooth pictures, each unlike the others, with values between the 256 levels."""
    drawn = torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(count))
    return list(torch.nn.functional.interpolate(drawn, (height, width), mode="bilinear"))


def cases(sources: list[Tensor]) -> list[Case]:
    return [Case(f"case {i}", picture, "", PROMPTS[i % len(PROMPTS)]) for i, picture in enumerate(sources)]


def results(edited: list[Tensor]) -> list[Result]:
    return [Result(picture, picture, picture) for picture in edited]


def prepared(picture: Tensor) -> Tensor:
    """CLIP's preprocessing by hand, of the file that the picture would be: (3, SIDE, SIDE)."""
    values = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(values)
    scale = SIDE / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    cut = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), dtype=np.float64) / 255
    mean, spread = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return torch.from_numpy((cut - mean) / spread).permute(2, 0, 1).float()


def reference(folder: str, edited: list[Tensor], prompts: list[str]) -> Tensor:
    """All cosines (pictures, prompts), by the model's own forward pass, which ends in logits."""
    network = CLIPModel.from_pretrained(folder).eval()
    tokens = CLIPTokenizer.from_pretrained(folder)(prompts, return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        logits = network(pixel_values=torch.stack([prepared(one) for one in edited]), **tokens).logits_per_image
        cosines: Tensor = logits / network.logit_scale.exp()
    return cosines


def test_clip_t_is_the_models_own_cosine(folder: str) -> None:
    edited = pictures(3)
    metric = ClipT(folder, "cpu")
    wanted = reference(folder, edited, list(PROMPTS))
    assert (wanted.max() - wanted.min()) > 0.1  # or nothing would be told apart
    assert metric.missing() == ""
    assert metric.many(cases(edited), results(edited)) == pytest.approx(wanted.diag().tolist(), abs=1e-5)
    assert metric(cases(edited)[1], results(edited)[1]) == pytest.approx(wanted[1, 1].item(), abs=1e-5)


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) > 4, reason="torchmetrics' CLIPScore needs transformers 4")
def test_clip_t_is_the_score_of_torchmetrics(folder: str) -> None:
    from torchmetrics.functional.multimodal import clip_score

    edited, found = pictures(3), []
    for case, result in zip(cases(edited), results(edited), strict=True):
        pixels = (result.picture * 255).round().to(torch.uint8)
        score = clip_score(
            pixels, case.target, lambda: (CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder))
        )
        found.append(ClipT(folder, "cpu")(case, result))
        assert max(100 * found[-1], 0) == pytest.approx(score.item(), abs=1e-3)  # it gives 100 times the cosine, or 0
    assert max(found) > 0


def test_clip_i_is_the_cosine_of_two_pictures(folder: str) -> None:
    sources, edited = pictures(3), pictures(5)[:3]
    network = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():  # by the parts of the model, not by its get_image_features
        seen = [
            network.visual_projection(network.vision_model(pixel_values=prepared(one)[None]).pooler_output)[0]
            for one in (*sources, *edited)
        ]
    wanted = [torch.cosine_similarity(a, b, dim=0).item() for a, b in zip(seen[:3], seen[3:], strict=True)]
    assert ClipI(folder, "cpu").many(cases(sources), results(edited)) == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) < 0.99


def test_a_picture_is_like_itself(folder: str) -> None:
    same = pictures(2)
    assert ClipI(folder, "cpu").many(cases(same), results(same)) == pytest.approx([1, 1], abs=1e-6)


def test_a_batch_gives_what_one_by_one_gives(tiny_clip: Path, tmp_path: Path) -> None:
    for name in ("together", "alone"):  # two names: nothing that was kept of one is found for the other
        (tmp_path / name).symlink_to(tiny_clip)
    count = CHUNK + 2
    sources, edited = pictures(count), pictures(count + 1)[:count]
    sources[2], edited[3] = pictures(1, 64, 40)[0], pictures(1, 33, 90)[0]  # of other sizes
    for kind in (ClipT, ClipI):
        together = kind(str(tmp_path / "together"), "cpu").many(cases(sources), results(edited))
        lone = kind(str(tmp_path / "alone"), "cpu")
        alone = [lone(case, result) for case, result in zip(cases(sources), results(edited), strict=True)]
        assert together == pytest.approx(alone, abs=1e-5)
        assert len(set(together)) == count


def test_what_was_seen_is_not_looked_at_again(folder: str) -> None:
    sources, edited = pictures(2), pictures(3)[:2]
    clip = Clip.load(folder, "cpu")
    assert Clip.load(folder, "cpu") is clip
    looked = []
    hooks = [
        clip.network.vision_model.register_forward_hook(lambda module, inputs, output: looked.append("pictures")),
        clip.network.text_model.register_forward_hook(lambda module, inputs, output: looked.append("prompts")),
    ]
    first = ClipT(folder, "cpu").many(cases(sources), results(edited))
    assert looked == ["pictures", "prompts"]
    ClipI(folder, "cpu").many(cases(sources), results(edited))
    assert looked == ["pictures", "prompts", "pictures"]  # the edited ones are known, the sources are not
    ClipI(folder, "cpu").many(cases(sources), results(sources))
    assert ClipT(folder, "cpu").many(cases(sources), results(edited)) == first
    assert len(looked) == 3
    ClipT(folder, "cpu").many(cases(sources), results([picture.flip(2) for picture in edited]))
    assert looked[3:] == ["pictures"]
    for hook in hooks:
        hook.remove()


class OtherVersion:
    """A CLIP whose embeddings come as the one or the other major version of transformers gives them."""

    def __init__(self, network: Any, wrapped: bool) -> None:
        self.network, self.config, self.wrapped = network, network.config, wrapped

    def get_image_features(self, pixel_values: Tensor) -> Any:
        pooled = self.network.vision_model(pixel_values=pixel_values).pooler_output
        return self._given(self.network.visual_projection(pooled))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        pooled = self.network.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return self._given(self.network.text_projection(pooled))

    def _given(self, embedding: Tensor) -> Any:
        return SimpleNamespace(pooler_output=embedding, last_hidden_state=embedding[:, None]) if self.wrapped else embedding


@pytest.mark.parametrize("wrapped", [False, True], ids=["a tensor, as 4", "an object, as 5"])
def test_embeddings_come_as_tensors_or_as_objects(folder: str, wrapped: bool) -> None:
    plain = Clip.load(folder, "cpu")
    other = dataclasses.replace(plain, model=f"{folder} {wrapped}", network=OtherVersion(plain.network, wrapped))
    torch.testing.assert_close(other.images(pictures(2)), plain.images(pictures(2)), atol=1e-6, rtol=0)
    torch.testing.assert_close(other.texts(PROMPTS), plain.texts(PROMPTS), atol=1e-6, rtol=0)
    assert plain.images(pictures(2)).norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert plain.texts(PROMPTS).shape == (3, 24)


def test_a_prompt_that_is_too_long_is_cut_off_and_told_once(folder: str) -> None:
    [picture], long = pictures(1), "cat " * (TOKENS + 4)
    case = dataclasses.replace(cases([picture])[0], target=long)
    metric = ClipT(folder, "cpu")
    with pytest.warns(UserWarning, match=rf"case 0: the prompt has {TOKENS + 6} tokens, of which .* reads {TOKENS};") as told:
        score, again = [metric(case, results([picture])[0]) for _ in range(2)]
    assert len(told) == 1
    assert score == again == pytest.approx(reference(folder, [picture], ["cat " * (TOKENS - 2)]).item(), abs=1e-5)


@pytest.fixture
def wordless(tiny_clip: Path, tmp_path: Path) -> Path:
    """A copy of the folder that has no tokenizer."""
    copy = tmp_path / "wordless"
    copy.mkdir()
    for file in tiny_clip.iterdir():
        if file.name not in ("tokenizer.json", "vocab.json", "merges.txt"):
            (copy / file.name).symlink_to(file)
    return copy


def test_a_tokenizer_without_words_is_refused(wordless: Path) -> None:
    (wordless / "vocab.json").write_text(json.dumps({START: 0, END: 1}))
    (wordless / "merges.txt").write_text("#version: 0.2\n")
    assert "lacks tokenizer.json; " in ClipT(str(wordless)).missing()
    AutoTokenizer.from_pretrained(wordless).save_pretrained(wordless)
    assert ClipT(str(wordless)).missing() == ""
    with pytest.raises(ValueError, match=r"knows 2 of \d+ tokens; fetch tokenizer.json"):
        ClipT(str(wordless), "cpu").many(cases(pictures(1)), results(pictures(1)))


def test_a_prompt_of_which_no_word_is_known_is_refused(wordless: Path) -> None:
    words = [*"abc", "t</w>", *(f"never{number}" for number in range(400)), START, END]
    (wordless / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (wordless / "merges.txt").write_text("#version: 0.2\n")
    AutoTokenizer.from_pretrained(wordless).save_pretrained(wordless)
    clip = Clip.load(str(wordless), "cpu")
    assert clip.texts(["cat", "cat on", ""]).shape == (3, 24)
    with pytest.raises(ValueError, match="knows no word of the prompt 'dog'"):
        clip.texts(["cat", "dog"])


def test_a_comparison_with_a_tokenizer_that_knows_no_word_is_refused_before_any_work(
    wordless: Path, tiny_scenes: str, tmp_path: Path
) -> None:
    words = ["z", "b</w>", *(f"never{number}" for number in range(400)), START, END]
    (wordless / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (wordless / "merges.txt").write_text("#version: 0.2\n")
    AutoTokenizer.from_pretrained(wordless).save_pretrained(wordless)
    (tmp_path / "prompts.csv").write_text("picture,source,target\none.png,circle,square\n")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "one.png")
    asked = ("--model", tiny_scenes, "--cases", f"folder:{tmp_path}", "--steps", "1", "--device", "cpu")
    metrics = ("--metrics", "clip-t", "--set", f"clip-t.model={wordless}", "--out", str(tmp_path / "out"))
    ran = CliRunner().invoke(main, ["compare", *asked, *metrics])
    assert ran.exit_code == 2
    assert ran.stderr.strip() == (
        f"fe: the tokenizer of {wordless} knows no word of the prompt 'square'; its files are not this model's"
    )
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_here_are_told_without_a_network(no_network: None) -> None:
    for kind in (ClipT, ClipI):
        command = "hf download openai/clip-vit-large-patch14 config.json model.safetensors preprocessor_config.json tokenizer"
        assert command in kind().missing()
        with pytest.raises(ValueError, match="is not on this machine; fetch it with: hf download"):
            kind(device="cpu").many(cases(pictures(1)), results(pictures(1)))


def test_a_file_that_lacks_weights_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "half"
    copy.mkdir()
    for file in tiny_clip.iterdir():
        (copy / file.name).symlink_to(file)
    weights = load_file(tiny_clip / "model.safetensors")
    (copy / "model.safetensors").unlink()
    kept = {name: weight for name, weight in weights.items() if "visual_projection" not in name}
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 of the network's, the first of them visual_projection\.weight"):
        Clip.load(str(copy), "cpu")


def test_the_device_is_no_part_of_what_is_measured() -> None:
    assert repr(ClipT("a/b", "cuda:1")) == repr(ClipT("a/b")) != repr(ClipT("a/c"))
    points = Case("points", torch.zeros(4, 2), "", "")
    assert not ClipT().suits(points)
    assert not ClipI().suits(points)


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of the hub, and no way out."""

    def refused(*args: Any, **named: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
