"""The generic adapter as a model: equal to the adapters that know their pipelines, leaving nothing behind, usable by editors,
and refusing what it cannot drive."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import pytest
import torch
from fe.cases.base import Case
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.execute import encode, execute
from fe.experiments.meter import metered
from fe.experiments.probe import probe
from fe.models.driven import DrivenModel
from fe.models.flux import FluxModel
from fe.models.sd3 import SD3Model
from fe.solvers.euler import Euler
from fe.solvers.fireflow import FireFlow
from fe.solvers.rk4 import RungeKutta4
from torch import Tensor

PROMPTS = ("a red circle", "a blue square on grey")


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


Pair = tuple[DrivenModel, Any]


@pytest.fixture(params=["flux", "sd3", "sd3.5", "sd3 without t5"])
def pair(request: pytest.FixtureRequest, tiny_pipeline: Callable[..., Any], tiny_sd3: Callable[..., Any]) -> Pair:
    """A pipeline through its own code, and through the adapter that calls its network."""
    if request.param == "flux":
        pipeline = tiny_pipeline(guided=True)
        return DrivenModel(pipeline), FluxModel(pipeline)
    pipeline = tiny_sd3(dual=request.param == "sd3.5", t5=request.param != "sd3 without t5")
    return DrivenModel(pipeline), SD3Model(pipeline)


@torch.no_grad()
def test_it_equals_the_adapter_that_knows_the_pipeline(pair: Pair) -> None:
    driven, known = pair
    assert (driven.multiple, driven.packing) == (known.multiple, known.packing)
    x, pictures = noise(2, 4, 8, 12), noise(2, 3, 16, 24).sigmoid()
    for guidance in (1.0, 3.5):
        ours, theirs = (model.velocity(0.3, x, model.condition(PROMPTS, guidance)) for model in pair)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        assert theirs.std() > 0.1
    torch.testing.assert_close(driven.grid(7, x.shape).times, known.grid(7, x.shape).times, rtol=0, atol=1e-6)
    torch.testing.assert_close(driven.encode(pictures), known.encode(pictures), rtol=0, atol=1e-5)
    torch.testing.assert_close(driven.decode(x), known.decode(x), rtol=0, atol=1e-5)


@torch.no_grad()
def test_rows_of_several_conditions_and_times_are_those_of_one(pair: Pair) -> None:
    driven, _ = pair
    x, times = noise(3, 4, 8, 12), torch.tensor([0.9, 0.2, 0.6])
    conditions = [model.condition(PROMPTS, 3.5).joined(model.condition(PROMPTS[:1], 1.0)) for model in pair]
    assert len(conditions[0]) == 3
    ours, theirs = (model.velocity(times, x, condition) for model, condition in zip(pair, conditions, strict=True))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="the condition has 3 rows and the latent 2"):
        driven.velocity(0.5, x[:2], conditions[0])
    with pytest.raises(ValueError, match=r"latents are \(B, 4, h, w\)"):
        driven.velocity(0.5, noise(3, 5, 8, 12), conditions[0])


@pytest.mark.parametrize("editor", [FlowEdit(), FlowEdit(n_min=1, paired=False), Inversion()])
def test_editors_give_what_they_give_on_the_known_adapter(pair: Pair, editor: Any) -> None:
    """And what they spend is what was foretold."""
    case = Case("one", noise(3, 16, 24).sigmoid(), *PROMPTS)
    ours, theirs = (execute(model, editor, FireFlow(), 3, [case], seed=4) for model in pair)
    torch.testing.assert_close(ours.latents, theirs.latents, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.pictures, theirs.pictures, rtol=0, atol=1e-4)
    assert (ours.latents - ours.source_latents).abs().max() > 0.01
    foretold = probe(editor, FireFlow(), 3, pair[0], PROMPTS)
    assert (ours.cost.calls, ours.cost.rows) == (foretold.calls, foretold.rows)
    assert ours.cost.rows == theirs.cost.rows


def test_equal_prompts_leave_the_picture_alone(kinds: Callable[[str], Any]) -> None:
    for name in ("lumina2", "qwen_image", "flux2_klein"):
        model = DrivenModel(kinds(name))
        side = 2 * model.multiple
        case = Case("one", noise(3, side, side).sigmoid(), PROMPTS[0], PROMPTS[0])
        outcome = execute(model, FlowEdit(source_guidance=3.0, target_guidance=3.0), Euler(), 4, [case], seed=0)
        torch.testing.assert_close(outcome.latents, outcome.source_latents, rtol=0, atol=1e-5)
        back = execute(model, Inversion(target_guidance=1.0), RungeKutta4(), 6, [case], seed=0)
        assert (back.latents - back.source_latents).square().mean() < 0.001 * back.source_latents.var()


def test_injection_says_that_there_is_nothing_to_inject(kinds: Callable[[str], Any]) -> None:
    model = DrivenModel(kinds("z_image"))
    assert not model.points()
    case = Case("one", torch.rand(3, 8, 8), *PROMPTS)
    with pytest.raises(ValueError, match="has no attention features"):
        execute(model, Injection(), Euler(), 2, [case], seed=0)


@contextmanager
def counted(module: Any) -> Iterator[list[int]]:
    calls: list[int] = []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


@pytest.mark.parametrize("name", ["lumina2", "qwen_image", "z_image", "sana"])
@torch.no_grad()
def test_prompts_are_encoded_once(kinds: Callable[[str], Any], name: str) -> None:
    model = DrivenModel(kinds(name))
    encoder = model.pipeline.text_encoder
    encoder = encoder.model if name == "qwen_image" else encoder
    for guidance, expected in ((1.0, 1), (3.0, 2)):
        with counted(encoder) as calls, metered(model.network) as meter:
            condition = model.condition(PROMPTS, guidance)
        assert (len(calls), meter.calls) == (expected, 0)
        x = noise(2, 4, 2, 2)
        with counted(encoder) as calls:
            for t in (0.9, 0.5):
                model.velocity(t, x, condition)
            model.grid(4, x.shape)
            model.decode(x)
        assert not calls


def attributes(pipeline: Any) -> dict[str, Any]:
    """What it has, and the hooks of its parts."""
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    modules = [module for part in parts for module in part.modules()]
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
    return {**vars(pipeline), "hooks": hooks, "config": dict(pipeline.config)}


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_whatever_breaks_it_off_nothing_is_left(kinds: Callable[[str], Any], fault: type[BaseException]) -> None:
    pipeline = kinds("qwen_image")
    pipeline.encode_prompt(PROMPTS[0])  # the first time, its encoder hooks on to itself for good
    before, threads = attributes(pipeline), threading.active_count()
    model = DrivenModel(pipeline)
    condition = model.condition(PROMPTS, 3.0)
    x = noise(2, 4, 8, 12)
    for _ in range(2):
        model.velocity(0.5, x, condition)
        model.grid(4, x.shape)
        model.decode(x)
        assert attributes(pipeline) == before

    def broken(*args: Any) -> None:
        raise fault("stop")

    for module in (pipeline.transformer.transformer_blocks[1], pipeline.vae.decoder, pipeline.text_encoder.model):
        handle = module.register_forward_hook(broken)
        with pytest.raises(fault):
            _ = model.velocity(0.5, x, condition), model.decode(x), model.condition(PROMPTS, 2.0)
        handle.remove()
        assert attributes(pipeline) == before
        assert threading.active_count() == threads
    assert torch.equal(model.velocity(0.5, x, condition), model.velocity(0.5, x, condition))


def test_it_is_silent_and_draws_no_random_numbers(kinds: Callable[[str], Any], capfd: pytest.CaptureFixture[str]) -> None:
    pipeline = kinds("lumina2")
    pipeline.set_progress_bar_config(disable=False, desc="mine")
    state = torch.get_rng_state()
    model = DrivenModel(pipeline)
    model.decode(model.velocity(0.5, noise(1, 4, 4, 4), model.condition(PROMPTS[:1], 3.0)))
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    pipeline(PROMPTS[0], height=32, width=32, num_inference_steps=1, output_type="latent", max_sequence_length=48)
    assert "mine" in capfd.readouterr().err


@pytest.mark.parametrize("how", ["model", "group"])
@torch.no_grad()
def test_parts_that_come_and_go_give_the_same(kinds: Callable[[str], Any], how: str) -> None:
    plain, moving = kinds("qwen_image"), kinds("qwen_image")
    if how == "model":
        moving.enable_model_cpu_offload(device="cpu")
    else:
        moving.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    models = [DrivenModel(plain), DrivenModel(moving)]
    x, pictures = noise(2, 4, 4, 6), noise(2, 3, 8, 12).sigmoid()
    for _ in range(2):
        ours, theirs = (model.velocity(0.5, x, model.condition(PROMPTS, 3.0)) for model in models)
        assert torch.equal(ours, theirs)
        assert torch.equal(models[0].decode(x), models[1].decode(x))
        assert torch.equal(models[0].encode(pictures), models[1].encode(pictures))
    if how == "model":  # its hooks are set up anew at the end of each run, and it must know the new ones
        parts = (moving.text_encoder, moving.transformer, moving.vae)
        assert {id(hook.hook) for hook in moving._all_hooks} == {id(part._hf_hook) for part in parts}


@pytest.mark.parametrize("name", ["lumina2", "qwen_image", "z_image", "sana", "cogview4", "flux2_klein"])
@pytest.mark.parametrize("codec", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_state_is_float32_in_bfloat16_too(kinds: Callable[[str], Any], name: str, codec: torch.dtype) -> None:
    exact, rounded = DrivenModel(kinds(name)), kinds(name).to(torch.bfloat16)
    rounded.vae.to(codec)
    model = DrivenModel(rounded)
    pictures = noise(1, 3, 2 * model.multiple, 2 * model.multiple).sigmoid()
    latents = model.encode(pictures)
    expected, found = (each.velocity(0.5, latents, each.condition(PROMPTS[:1], 3.0)) for each in (exact, model))
    assert latents.dtype == found.dtype == model.decode(latents).dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.1


@torch.no_grad()
def test_a_scheduler_that_is_told_to_walk_a_flow_gives_its_grid(kinds: Callable[[str], Any]) -> None:
    """Sana comes with one: its levels are used, and the velocity is the same."""
    plain, told = kinds("sana"), kinds("sana")
    told.register_modules(
        scheduler=diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    )
    models = [DrivenModel(plain), DrivenModel(told)]
    x = noise(1, 4, 2, 3)
    ours, theirs = (model.velocity(0.4, x, model.condition(PROMPTS[:1], 3.0)) for model in models)
    assert torch.equal(ours, theirs)
    own = diffusers.DPMSolverMultistepScheduler.from_config(told.scheduler.config)
    own.set_timesteps(6)
    assert models[1].grid(6, x.shape).times == tuple(own.sigmas.tolist())
    with pytest.raises(ValueError, match="needs at least 1 step"):
        models[1].grid(0, x.shape)


def test_a_grid_that_is_none_is_refused(kinds: Callable[[str], Any]) -> None:
    """Qwen-Image's is stretched to its last level, which one step cannot be."""
    model = DrivenModel(kinds("qwen_image"))
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="gives no grid of 1 steps: the knots"):
        model.grid(1, (1, 4, 4, 4))


def swapped(pipeline: Any, **parts: Any) -> Any:
    pipeline.register_modules(**parts)
    return pipeline


def empty(kind: Any, **parts: Any) -> Any:
    """A pipeline of that class without parts but these."""
    names, _ = kind._get_signature_keys(kind)
    return kind(**{**dict.fromkeys(set(names) - {"self"}), **parts})


class Resizing(diffusers.Lumina2Pipeline):  # type: ignore[misc]
    """It keeps to one size of picture, whatever was asked for, as HiDreamImagePipeline does."""

    def __call__(  # type: ignore[no-untyped-def]
        self, prompt=None, height=None, width=None, num_inference_steps=1, guidance_scale=1.0, latents=None, **more
    ):
        return super().__call__(
            prompt, 64, 64, num_inference_steps, guidance_scale, generator=more["generator"], return_dict=False
        )

    __call__.__signature__ = inspect.signature(diffusers.Lumina2Pipeline.__call__)  # type: ignore[attr-defined]


class Scaling(diffusers.Lumina2Pipeline):  # type: ignore[misc]
    """It takes latents in units of its own."""

    def prepare_latents(self, *args: Any, **given: Any) -> Tensor:
        scaled: Tensor = 2.0 * super().prepare_latents(*args, **given)
        return scaled


class TwoNetworks(diffusers.Lumina2Pipeline):  # type: ignore[misc]
    """One network for the noisier half of the way, another for the rest."""

    def __init__(
        self, transformer: Any, transformer_2: Any, scheduler: Any, vae: Any, text_encoder: Any, tokenizer: Any
    ) -> None:
        super().__init__(transformer, scheduler, vae, text_encoder, tokenizer)
        self.register_modules(transformer_2=transformer_2)


def refusals(kinds: Callable[[str], Any], flux: Any, sd3: Any) -> dict[str, Callable[[], Any]]:
    flow = diffusers.FlowMatchEulerDiscreteScheduler
    lumina = kinds("lumina2")
    return {
        "is not known to be flow-based: its scheduler is a EulerDiscreteScheduler": lambda: empty(
            diffusers.StableDiffusionXLPipeline, scheduler=diffusers.EulerDiscreteScheduler(), add_watermarker=False
        ),
        "is not known to be flow-based: its scheduler is a FlowMatchHeun": lambda: swapped(
            kinds("sana"), scheduler=diffusers.FlowMatchHeunDiscreteScheduler()
        ),
        r"runs its noise levels upwards \(invert_sigmas\)": lambda: empty(
            diffusers.MochiPipeline, scheduler=flow(invert_sigmas=True)
        ),
        "WanPipeline makes videos": lambda: empty(diffusers.WanPipeline, scheduler=flow()),
        "FluxImg2ImgPipeline needs 'image' beside the prompt": lambda: diffusers.FluxImg2ImgPipeline(**flux.components),
        "StableDiffusion3Img2ImgPipeline needs 'image'": lambda: diffusers.StableDiffusion3Img2ImgPipeline(**sd3.components),
        "IFPipeline takes no 'latents'": lambda: empty(diffusers.IFPipeline, scheduler=flow()),
        "has no text encoders": lambda: swapped(kinds("sana"), text_encoder=None),
        r"has 2 denoising networks \(transformer, transformer_2\)": lambda: TwoNetworks(
            **lumina.components, transformer_2=lumina.transformer
        ),
        "HunyuanImagePipeline takes no guidance_scale": lambda: empty(
            diffusers.HunyuanImagePipeline, scheduler=flow(), transformer=sd3.transformer, text_encoder=sd3.text_encoder
        ),
        "of a picture of 48x32 pixels it makes latents": lambda: Resizing(**lumina.components),
        "does not start from the latents that it is given": lambda: Scaling(**lumina.components),
        "latents of Lumina2Pipeline are not understood: it decodes them": lambda: _misread(kinds("lumina2")),
    }


def _misread(pipeline: Any) -> Any:
    """A codec whose configuration names statistics that the pipeline does not look at."""
    pipeline.vae.register_to_config(latents_mean=[0.1] * 4, latents_std=[1.0] * 4)
    return pipeline


def test_what_cannot_be_driven_is_refused_in_one_sentence(
    kinds: Callable[[str], Any], tiny_pipeline: Callable[..., Any], tiny_sd3: Callable[..., Any]
) -> None:
    for message, build in refusals(kinds, tiny_pipeline(guided=True), tiny_sd3()).items():
        with pytest.raises(ValueError, match=message) as refusal:
            DrivenModel(build())
        assert "\n" not in str(refusal.value)


def test_bad_pictures_prompts_and_guidances_are_refused(kinds: Callable[[str], Any]) -> None:
    model = DrivenModel(kinds("z_image"))
    for prompts, guidance, message in (
        ((), 1.0, "at least one prompt"),
        (PROMPTS, float("nan"), "guidance must be a finite number"),
        (("zwei gelbe Dreiecke",), 1.0, "knows no word of the prompt"),
        (("a red circle " * 20,), 1.0, "has 61 tokens and this model reads 48"),
    ):
        with pytest.raises(ValueError, match=message):
            model.condition(prompts, guidance)
    with pytest.raises(ValueError, match="must be multiples of 4 pixels, got 6x8"):
        model.encode(torch.rand(1, 3, 8, 6))
    with pytest.raises(ValueError, match=r"pictures are \(B, 3, H, W\)"):
        encode(model, [Case("one", torch.rand(1, 8, 8), *PROMPTS)])
    model = DrivenModel(swapped(kinds("z_image"), vae=None))
    with pytest.raises(ValueError, match="no codec"):
        model.decode(noise(1, 4, 4, 4))
