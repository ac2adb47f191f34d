"""The published architectures: counted against what is published, and filled with random numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from fe.cli.main import main
from fe.experiments.fingerprint import hash_model
from fe.experiments.meter import metered
from fe.experiments.names import load_model
from fe.models.architectures import ARCHITECTURES, Architecture, Part, counted
from fe.models.base import Model, Setup
from fe.models.pipelines import PipelineLoader
from fe.models.random_weights import WORDS, HashedWords, filled
from fe.registry import MODELS

LOADERS = {name: kind for name in MODELS.builtin if issubclass(kind := MODELS[name], PipelineLoader)}
NAMES = {name for name, kind in LOADERS.items() if kind.home}
SMALL: dict[str, dict[str, Any]] = {
    "FluxPipeline": {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1},
    "StableDiffusion3Pipeline": {"num_layers": 2, "num_attention_heads": 1, "caption_projection_dim": 64},
    "StableDiffusionPipeline": {"block_out_channels": (32,) * 4, "layers_per_block": 1},
}


def size(hub_id: str, part: str) -> int:
    with torch.device("meta"):
        return counted(ARCHITECTURES[hub_id].networks[part].build())


@pytest.mark.parametrize(
    ("hub_id", "part", "published"),
    [
        ("black-forest-labs/FLUX.1-dev", "transformer", 11_901_408_320),
        ("black-forest-labs/FLUX.1-schnell", "transformer", 11_891_178_560),
        ("stabilityai/stable-diffusion-3-medium-diffusers", "transformer", 2_084_951_104),
        ("XCLiu/2_rectified_flow_from_sd_1_5", "unet", 859_520_964),
        ("black-forest-labs/FLUX.1-dev", "vae", 83_819_683),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "vae", 83_653_863),
        ("black-forest-labs/FLUX.1-dev", "text_encoder", 123_060_480),
        ("black-forest-labs/FLUX.1-dev", "text_encoder_2", 4_762_310_656),
        ("stabilityai/stable-diffusion-3-medium-diffusers", "text_encoder_2", 694_659_840),
    ],
)
def test_networks_have_the_published_numbers_of_parameters(hub_id: str, part: str, published: int) -> None:
    assert size(hub_id, part) == published


@pytest.mark.parametrize(("name", "published"), [("3.5-medium", 2.5e9), ("3.5-large", 8.1e9)])
def test_sizes_that_are_published_in_round_numbers(name: str, published: float) -> None:
    assert size(f"stabilityai/stable-diffusion-{name}", "transformer") == pytest.approx(published, rel=0.015)


def test_every_published_model_has_its_architecture_and_no_other_has() -> None:
    assert {"flux-dev", "flux-schnell", "flux-krea", "sd3-medium", "sd3.5-medium", "sd3.5-large"} <= NAMES
    assert {LOADERS[name].home for name in NAMES} == set(ARCHITECTURES)


def shrunk(architecture: Architecture) -> Architecture:
    """The same with few layers and thin ones; the widths of what the text encoders give stay."""
    networks = dict(architecture.networks)
    for part in ("transformer", "unet"):
        if part in networks:
            small = {**networks[part].config, **SMALL[architecture.pipeline]}
            if "dual_attention_layers" in small:
                small["dual_attention_layers"] = (0,)
            networks[part] = replace(networks[part], config=small)
    networks["vae"] = replace(networks["vae"], config={**networks["vae"].config, "block_out_channels": (32,) * 4})
    return replace(architecture, networks=networks)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, architecture in list(ARCHITECTURES.items()):
        monkeypatch.setitem(ARCHITECTURES, name, shrunk(architecture))


def load(name: str, dtype: str = "float32") -> Model[Any]:
    return load_model(name, Setup(dtype=dtype, weights="random"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", sorted(NAMES))
@torch.inference_mode()
def test_a_random_model_reads_draws_and_evaluates(name: str) -> None:
    model = load(name, "bfloat16")
    assert not model.trained
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.bfloat16}
    x = model.encode(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert x.shape == (2, 4 if name in ("2rf", "instaflow", "sd15") else 16, 8, 8)
    condition = model.condition(["a cat on a mat", "a dog on a mat"], 3.0)
    again = model.condition(["a dog on a mat", "a cat on a mat"], 3.0)
    velocity = model.velocity(0.7, x, condition)
    assert torch.isfinite(velocity).all()
    assert velocity.std() > 0.01
    swapped = model.velocity(0.7, x.flip(0), again).flip(0)  # prompts keep their embeddings, in whatever row they are
    torch.testing.assert_close(velocity, swapped, atol=0.05 * float(velocity.std()), rtol=0)
    assert (velocity - model.velocity(0.7, x, again)).abs().max() > 0.0
    assert model.decode(x).std() > 0.0


@pytest.mark.usefixtures("small")
def test_the_text_has_the_published_shape() -> None:
    flux = load("flux-dev").condition(["a"], 1.0)
    assert (flux.prompt_embeds.shape, flux.pooled.shape) == ((1, 512, 4096), (1, 768))
    assert load("flux-schnell").condition(["a"], 1.0).prompt_embeds.shape == (1, 256, 4096)
    assert [rows.shape for rows in load("sd3.5-medium").condition(["a"], 4.0).text] == [(1, 77 + 256, 4096), (1, 2048)]
    assert [rows.shape for rows in load("2rf").condition(["a"], 1.0).text] == [(1, 77, 768)]


@pytest.mark.usefixtures("small")
def test_the_same_weights_every_time_and_nobody_elses_random_numbers_touched() -> None:
    before = torch.random.get_rng_state()
    first, second = load("sd3.5-medium"), load("sd3.5-medium")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hash_model(first) == hash_model(second) != hash_model(load("sd3-medium"))
    assert torch.equal(first.condition(["a cat"], 1.0).text[0], second.condition(["a cat"], 1.0).text[0])


def test_filling_keeps_what_is_no_parameter_and_starts_norms_at_one() -> None:
    part = Part("diffusers:SD3Transformer2DModel", {**ARCHITECTURES[SD3].networks["transformer"].config, **SMALL[KIND]})
    network: Any = filled(part, torch.device("cpu"), torch.float32)
    reference = part.build()
    torch.testing.assert_close(network.pos_embed.pos_embed, reference.pos_embed.pos_embed)  # computed, not drawn
    norms = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    assert all(((values == 0.0) | (values == 1.0)).all() for values in norms)
    weights = torch.cat([parameter.flatten() for parameter in network.parameters() if parameter.ndim > 1])
    assert weights.std() == pytest.approx(0.02, rel=0.01)
    assert abs(weights.mean()) < 1e-4
    assert {name for name, _ in network.named_parameters()} == {name for name, _ in reference.named_parameters()}
    assert not any(parameter.is_meta for parameter in network.parameters())


SD3, KIND = "stabilityai/stable-diffusion-3-medium-diffusers", "StableDiffusion3Pipeline"


def test_the_stand_in_tokenizer_knows_every_word() -> None:
    tokenizer = HashedWords(77)
    ids = tokenizer(["a cat", "a dog", "un gato"], padding="max_length", max_length=77, truncation=True).input_ids
    assert {len(row) for row in ids} == {77}
    assert ids[0][1] == ids[1][1]
    assert len({tuple(row) for row in ids}) == 3
    assert all(0 <= index < WORDS for row in ids for index in row)
    assert len(tokenizer("a " * 100, truncation=True, max_length=77).input_ids) == 77


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["flux-dev", "sd3.5-medium", "2rf"])
@pytest.mark.parametrize("method", [["--editor", "flowedit"], ["--editor", "injection", "--solver", "fireflow"]])
def test_the_command_edits_with_random_weights(name: str, method: list[str], tmp_path: Path) -> None:
    words = ["edit", "scenes:7", "--source", "a cat", "--target", "a dog", "--steps", "2", "--side", "128"]
    words += ["--model", name, "--weights", "random", "--dtype", "bf16", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, [*words, *method], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "random weights" in done.output
    assert " GB at its peak" in done.output
    assert len(list(tmp_path.glob("scenes-7.*.png"))) == 1


@pytest.mark.usefixtures("small")
def test_a_device_that_is_too_small_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("fe.models.random_weights.filled", full)
    with pytest.raises(ValueError, match=r"^out of GPU memory; try --dtype bfloat16 or --low-memory or --quantise nf4$"):
        load("flux-dev")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mixture", "the mixture model has no weights"),
        ("scenes:elsewhere", "random weights take the shipped model's shape"),
        ("flux:elsewhere", "random weights fill a published architecture, black-forest-labs/FLUX.1-dev or .*; got 'elsewhere'"),
        (f"flux:{SD3}", f"got '{SD3}'"),
        (f"diffusers:{SD3}", "random"),
    ],
)
def test_what_has_no_published_architecture_is_refused(model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(model)


def test_a_random_scenes_model_is_as_large_as_the_trained_one() -> None:
    trained, untrained = load_model("scenes", Setup()), load("scenes", "bfloat16")
    assert (trained.trained, untrained.trained) == (True, False)
    assert counted(trained.network) == counted(untrained.network)
    x, words = torch.randn(1, *trained.encode(torch.rand(1, 3, 64, 64)).shape[1:]), ["a red star"]
    with torch.inference_mode(), metered(untrained.network) as meter:
        assert torch.isfinite(untrained.velocity(0.5, x, untrained.condition(words, 1.0))).all()
    assert meter.rows == 1
    assert untrained.network.dtype == torch.bfloat16
