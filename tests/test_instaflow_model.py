"""The UNet adapter on a whole toy pipeline: rows, prompts, sizes, attention points, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from fe.attention_hooks.base import Point
from fe.attention_hooks.store import FeatureStore, Inject, Record
from fe.editors.base import Edit, KeyedNoise, Request
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.meter import Meter, metered
from fe.experiments.names import build_solver
from fe.models.instaflow import UNetModel
from fe.ode import Tick
from torch import Tensor, nn

Pipelines = Callable[..., StableDiffusionPipeline]
PREDICTIONS = ["velocity", "epsilon", "v-vp"]
SOURCE = ("a large red star at the left", "a small blue ring at the right")
TARGET = ("a large blue star at the left", "a small blue heart at the right")
EVERY = Injection(inject=2, strategy="add_q+replace_k+replace_v+add_v", q_ratio=0.5, k_ratio=0.9, v_ratio=0.6)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def latents(rows: int = 2, height: int = 8, width: int = 12) -> Tensor:
    return torch.randn(rows, 4, height, width, generator=torch.Generator().manual_seed(5))


def run(model: UNetModel, editor: Any, solver: str = "euler", target: tuple[str, ...] = TARGET) -> tuple[Edit, Meter]:
    latent = latents()
    grid, noise = model.grid(4, latent.shape), KeyedNoise(0, ("a", "b"), latent)
    with metered(model.network) as meter:
        return editor.edit(model, Request(latent, SOURCE, target), build_solver(solver), grid, noise), meter


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_rows_may_differ_in_time_prompt_and_guidance(predicts: str, tiny_unet: Pipelines) -> None:
    model, x, times = UNetModel(tiny_unet(), predicts=predicts), latents(3), (0.8, 0.3, 0.5)
    prompts, scales = (*SOURCE, TARGET[0]), (4.0, 1.0, 2.0)
    rows = [model.condition([prompt], scale) for prompt, scale in zip(prompts, scales, strict=True)]
    together = rows[0].joined(rows[1]).joined(rows[2])
    assert model.calls(together) == [[0, 1, 2, 0, 2]]
    with metered(model.network) as meter:
        both = model.velocity(torch.tensor(times), x, together)
    assert (meter.calls, meter.rows) == (1, 5)
    for row, condition in enumerate(rows):
        alone = model.velocity(times[row], x[[row]], condition)
        torch.testing.assert_close(both[[row]], alone, atol=1e-5, rtol=1e-5)


def test_each_prompt_is_encoded_once_as_the_pipeline_does(tiny_unet: Pipelines) -> None:
    pipeline = tiny_unet()
    model, read = UNetModel(pipeline), []
    pipeline.text_encoder.register_forward_pre_hook(lambda module, inputs: read.append(len(inputs[0])))
    condition = model.condition([*SOURCE, SOURCE[0]], 2.0)
    assert read == [3]  # two prompts and the empty one
    expected, negative = pipeline.encode_prompt([*SOURCE, SOURCE[0]], "cpu", 1, do_classifier_free_guidance=True)
    torch.testing.assert_close(condition.text[0], expected)
    torch.testing.assert_close(condition.negative[0], negative)


@pytest.mark.parametrize(
    ("prompts", "guidance", "message"),
    [
        ([], 1.0, "at least one prompt"),
        (["a red star"], math.inf, "finite number"),
        (["a " * 20], 1.0, "has 22 tokens and this model reads 16; shorten it"),
        (["zyzzyva"], 1.0, "knows no word of the prompt 'zyzzyva'"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(
    prompts: list[str], guidance: float, message: str, tiny_unet: Pipelines
) -> None:
    with pytest.raises(ValueError, match=message):
        UNetModel(tiny_unet()).condition(prompts, guidance)


def test_a_pipeline_without_text_encoder_is_told(tiny_unet: Pipelines) -> None:
    pipeline = tiny_unet()
    pipeline.text_encoder = None
    with pytest.raises(ValueError, match="no text encoder"):
        UNetModel(pipeline).condition(["a red star"], 1.0)


def test_latents_are_the_codecs_mode_times_its_scale(tiny_unet: Pipelines) -> None:
    pipeline = tiny_unet()
    model, pictures = UNetModel(pipeline), torch.rand(2, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    mean = pipeline.vae.encode(2 * pictures - 1).latent_dist.mean
    encoded = model.encode(pictures)
    torch.testing.assert_close(encoded, 0.18215 * mean)
    back = pipeline.image_processor.postprocess(pipeline.vae.decode(encoded / 0.18215).sample, output_type="pt")
    torch.testing.assert_close(model.decode(encoded), back)
    with pytest.raises(ValueError, match="multiples of 2 pixels, got 14x9"):
        model.encode(pictures[:, :, :9])


@pytest.mark.parametrize(("height", "width"), [(8, 12), (5, 7), (1, 3), (9, 4)])
def test_latents_of_any_size(height: int, width: int, tiny_unet: Pipelines) -> None:
    model, x = UNetModel(tiny_unet()), latents(2, height, width)
    velocity = model.velocity(0.4, x, model.condition(SOURCE, 2.0))
    assert velocity.shape == x.shape
    assert torch.isfinite(velocity).all()


@pytest.mark.parametrize("x", [torch.zeros(1, 3, 8, 8), torch.zeros(4, 8, 8)])
def test_other_latents_are_refused(x: Tensor, tiny_unet: Pipelines) -> None:
    model = UNetModel(tiny_unet())
    with pytest.raises(ValueError, match=r"latents are \(B, 4, h, w\), got"):
        model.velocity(0.5, x, model.condition(["a red star"], 1.0))


def test_a_row_without_a_condition_is_refused(tiny_unet: Pipelines) -> None:
    model = UNetModel(tiny_unet())
    with pytest.raises(ValueError, match="the condition has 1 rows and the latent 2"):
        model.velocity(0.5, latents(), model.condition(["a red star"], 1.0))


def test_bfloat16_is_the_networks_alone(tiny_unet: Pipelines) -> None:
    exact, rounded = UNetModel(tiny_unet()), UNetModel(tiny_unet(torch.bfloat16))
    x, fed = latents(), []
    rounded.network.register_forward_pre_hook(lambda module, inputs: fed.append(inputs[1]))
    velocity = rounded.velocity(0.9991, x, rounded.condition(SOURCE, 2.0))
    assert velocity.dtype == torch.float32
    assert fed[0].tolist() == pytest.approx([999.1] * 4)  # bfloat16 knows only every fourth number there
    expected = exact.velocity(0.9991, x, exact.condition(SOURCE, 2.0))
    assert float((velocity - expected).square().mean().sqrt() / expected.square().mean().sqrt()) < 0.05


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("in_channels", 9, "takes 9 and gives 4 .an inpainting or instruction model"),
        ("time_cond_proj_dim", 256, "more than time and text .time_cond_proj_dim is 256"),
        ("addition_embed_type", "text_time", "more than time and text .addition_embed_type is 'text_time'"),
    ],
)
def test_other_unets_are_refused(name: str, value: Any, message: str, tiny_unet: Pipelines) -> None:
    pipeline = tiny_unet()
    pipeline.unet.register_to_config(**{name: value})
    with pytest.raises(ValueError, match=message):
        UNetModel(pipeline)


def test_points_are_the_self_attentions_in_the_order_they_run(tiny_unet: Pipelines) -> None:
    model, store = UNetModel(tiny_unet()), FeatureStore()
    points = model.points()
    assert set(points) == {Point("self", block, part) for block in range(4) for part in ("q", "k", "v")}
    unet = model.pipeline.unet
    assert points[Point("self", 1, "k")] is unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_k
    assert points[Point("self", 3, "v")] is unet.up_blocks[1].attentions[1].transformer_blocks[0].attn1.to_v
    model.field(model.condition(SOURCE, 1.0), Record(store, tuple(points)))(Tick(0.5, 0.5, 0.4), latents())
    assert [slot.point.block for slot in store] == [block for block in range(4) for _ in range(3)]
    sizes = [tuple(store[slot].shape) for slot in store if slot.point.part == "v"]
    assert sizes == [(2, 96, 16), (2, 24, 32), (2, 96, 16), (2, 96, 16)]


@pytest.mark.parametrize(
    ("predicts", "solver"), [("velocity", "euler"), ("velocity", "midpoint"), ("velocity", "fireflow"), ("epsilon", "fireflow")]
)
@pytest.mark.parametrize(("source", "target"), [(1.0, 1.0), (1.0, 5.0), (2.0, 5.0)])
def test_stored_and_in_batch_agree(predicts: str, solver: str, source: float, target: float, tiny_unet: Pipelines) -> None:
    model = UNetModel(tiny_unet(), predicts=predicts)
    editor = replace(EVERY, source_guidance=source, target_guidance=target)
    stored, meter = run(model, editor, solver)
    shared, more = run(model, replace(editor, memory="in-batch"), solver)
    scale = float(stored.latent.abs().max())
    torch.testing.assert_close(shared.latent / scale, stored.latent / scale, atol=1e-5, rtol=0)
    plain, _ = run(model, Inversion(source_guidance=source, target_guidance=target), solver)
    assert (plain.latent - stored.latent).abs().max() > 0.01
    evaluations = stored.counts["injected"] // 16  # four changes in each of four blocks
    assert evaluations >= 2
    assert more.calls == meter.calls
    assert more.rows - meter.rows == evaluations * 2 * (2 if source > 1 else 1)


def test_injecting_what_is_there_changes_nothing(tiny_unet: Pipelines) -> None:
    model, store, tick = UNetModel(tiny_unet()), FeatureStore(), Tick(0.5, 0.5, 0.4)
    condition, points = model.condition(SOURCE, 3.0), tuple(model.points())
    first = model.field(condition, Record(store, points))(tick, latents())
    assert torch.equal(model.field(condition, Inject(store, points))(tick, latents()), first)
    other = model.field(condition, Inject(store, points))(tick, latents() + 0.1)
    assert (other - model.field(condition)(tick, latents() + 0.1)).abs().max() > 1e-3


def test_fused_projections_edit_but_have_no_points(tiny_unet: Pipelines) -> None:
    pipeline = tiny_unet()
    model = UNetModel(pipeline)
    expected, _ = run(model, FlowEdit(n_max=3))
    pipeline.unet.fuse_qkv_projections()
    fused, _ = run(model, FlowEdit(n_max=3))
    torch.testing.assert_close(fused.latent, expected.latent, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        run(model, EVERY)
    pipeline.unet.unfuse_qkv_projections()
    assert len(model.points()) == 12


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_equal_prompts_leave_the_picture_alone_in_flowedit(predicts: str, tiny_unet: Pipelines) -> None:
    model = UNetModel(tiny_unet(), predicts=predicts)
    same, meter = run(model, FlowEdit(n_max=3, source_guidance=2.0, target_guidance=2.0), target=SOURCE)
    scale = 1e-5 if predicts == "velocity" else 1e-3  # 1 / (1 - t) makes more of rounding
    torch.testing.assert_close(same.latent, latents(), atol=scale, rtol=0)
    changed, _ = run(model, FlowEdit(n_max=3, source_guidance=2.0, target_guidance=2.0))
    assert (changed.latent - same.latent).abs().max() > 1e-3
    assert (meter.calls, meter.rows) == (3, 3 * 8)


def test_nothing_is_left_on_the_pipeline(tiny_unet: Pipelines) -> None:
    pipeline = tiny_unet()
    model = UNetModel(pipeline, predicts="epsilon")
    before = dict(pipeline.scheduler.config)
    run(model, EVERY)
    assert dict(pipeline.scheduler.config) == before
    assert not any(hooks for module in pipeline.unet.modules() for hooks in hooks_of(module))


def hooks_of(module: nn.Module) -> list[Any]:
    return [module._forward_hooks, module._forward_pre_hooks]
