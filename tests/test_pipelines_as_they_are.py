"""Pipelines as people hand them over: with a LoRA, fused, quantised or offloaded. They keep working, or the reason is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, FluxPipeline
from fe.attention_hooks.base import Part, Point
from fe.attention_hooks.store import FeatureStore, Inject, Record
from fe.cases.base import Case
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.experiments.execute import Outcome, execute
from fe.experiments.fingerprint import hash_model
from fe.experiments.names import load_model, wrap_pipeline
from fe.models.base import Setup
from fe.models.flux import FluxModel
from fe.models.instaflow import UNetModel
from fe.models.sd3 import SD3Model
from fe.ode import Tick
from fe.solvers.euler import Euler
from fe.solvers.fireflow import FireFlow
from torch import Tensor, nn

SOURCE, TARGET = "a large red star at the left", "a small blue ring at the right"
TICK = Tick(0.5, 0.5, 0.4)
Pipelines = Callable[..., Any]
Build = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=["flux", "sd3", "unet"])
def build(request: pytest.FixtureRequest, tiny_pipeline: Pipelines, tiny_sd3: Pipelines, tiny_unet: Pipelines) -> Build:
    """Makes the pipeline of one family, always with the same weights, and says how it becomes a model."""
    made: dict[str, tuple[Build, Build]] = {
        "flux": (lambda **given: tiny_pipeline(guided=True, **given), FluxModel),
        "sd3": (lambda **given: tiny_sd3(dual=True, **given), SD3Model),
        "unet": (tiny_unet, UNetModel),
    }
    pipeline, wrap = made[request.param]

    def build(change: Callable[[Any], object] = lambda pipeline: None, **given: Any) -> Any:
        changed = pipeline(**given)
        change(changed)
        return wrap(changed)

    return build


def loaded(spec: str, setup: Setup) -> Any:
    return load_model(spec, setup)


def latent(seed: int = 0) -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def velocity(model: Any) -> Tensor:
    found: Tensor = model.velocity(0.5, latent(), model.condition([SOURCE], 2.0))
    return found


def edited(model: Any) -> list[Outcome]:
    """With a picture in and a picture out, without hooks and with them."""
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))
    case, hooked = Case("a", picture, SOURCE, TARGET), Injection(inject=2, strategy="replace_v+add_k")
    return [
        execute(model, editor, solver, 3, [case], seed=0) for editor, solver in ((FlowEdit(), Euler()), (hooked, FireFlow()))
    ]


def check_same(ours: list[Outcome], theirs: list[Outcome], tolerance: float = 1e-5) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.latents, other.latents, atol=tolerance, rtol=0)
        torch.testing.assert_close(one.pictures, other.pictures, atol=tolerance, rtol=0)
        assert (one.cost.calls, one.cost.rows, one.edit.counts) == (other.cost.calls, other.cost.rows, other.edit.counts)


def met(model: Any, part: Part) -> dict[Point, Tensor]:
    """The features of that part, as a hook meets them."""
    store = FeatureStore()
    condition = model.condition([SOURCE], 1.0)
    model.field(condition, Record(store, [point for point in model.points() if point.part == part]))(TICK, latent())
    return {slot.point: feature for slot, feature in store.items()}


# LoRA


def adapter(pipeline: Any) -> None:
    """A small random LoRA on the value projections alone."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    network = pipeline.components.get("transformer") or pipeline.unet
    torch.manual_seed(0)
    network.add_adapter(peft.LoraConfig(r=2, target_modules=["to_v"], init_lora_weights=False))


def test_points_meet_what_a_lora_adds(build: Build) -> None:
    plain, adapted = build(), build(adapter)
    assert (velocity(adapted) - velocity(plain)).abs().max() > 1e-3
    before, after = met(plain, "v"), met(adapted, "v")
    first = next(iter(before))
    assert list(before) == list(after)
    layer, inputs = adapted.points()[first], []
    handle = layer.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    adapted.velocity(0.5, latent(), adapted.condition([SOURCE], 1.0))
    handle.remove()
    delta = layer.scaling["default"] * layer.lora_B["default"](layer.lora_A["default"](inputs[0]))
    assert delta.abs().max() > 1e-3
    torch.testing.assert_close(after[first], layer.base_layer(inputs[0]) + delta, atol=1e-5, rtol=0)


def test_a_lora_switched_off_is_the_plain_pipeline(build: Build) -> None:
    def switched_off(pipeline: Any) -> None:
        adapter(pipeline)
        (pipeline.components.get("transformer") or pipeline.unet).disable_adapters()

    check_same(edited(build(switched_off)), edited(build()))


def test_a_lora_has_results_of_its_own(build: Build) -> None:
    plain, adapted = build(), build(adapter)
    assert hash_model(plain) != hash_model(adapted)
    for one, other in zip(edited(plain), edited(adapted), strict=True):
        assert (one.latents - other.latents).abs().max() > 1e-3
        assert one.edit.counts == other.edit.counts


# fused projections


def fused(pipeline: Any) -> None:
    (pipeline.components.get("transformer") or pipeline.unet).fuse_qkv_projections()


def test_a_pipeline_may_be_moved_to_another_dtype_once_it_is_a_model(build: Build) -> None:
    moved = build()
    before = velocity(moved)
    moved.pipeline.to(torch.bfloat16)
    reference = build(lambda pipeline: pipeline.to(torch.bfloat16))
    assert torch.equal(velocity(moved), velocity(reference))
    assert not torch.equal(velocity(moved), before)
    for found, expected in zip(edited(moved), edited(reference), strict=True):
        assert torch.equal(found.latents, expected.latents)


def without(pipeline: Any, part: str) -> Any:
    pipeline.register_modules(**{part: None})
    return pipeline


@pytest.mark.parametrize("part", ["scheduler", "transformer"])
def test_a_pipeline_without_a_velocity_is_refused(part: str, tiny_pipeline: Pipelines) -> None:
    with pytest.raises(ValueError, match=f"this FluxPipeline has no {part}"):
        wrap_pipeline(without(tiny_pipeline(guided=True), part))


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder"])
def test_a_pipeline_without_readers_of_prompts_is_refused(part: str, build: Build) -> None:
    model = build(lambda pipeline: without(pipeline, part))
    with pytest.raises(ValueError, match=r"this pipeline (lacks|has no) text encoder"):
        velocity(model)


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_a_scheduler_that_is_changed_once_it_is_a_model_counts(
    family: str, tiny_pipeline: Pipelines, tiny_sd3: Pipelines
) -> None:
    model = FluxModel(tiny_pipeline(guided=False)) if family == "flux" else SD3Model(tiny_sd3())
    before = model.grid(4, (1, 4, 8, 8))
    model.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    assert model.grid(4, (1, 4, 8, 8)) != before
    model.pipeline.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(ValueError, match="its scheduler is another"):
        model.grid(4, (1, 4, 8, 8))


def test_a_transformer_that_is_fused_once_it_is_a_model_is_refused_too(tiny_sd3: Pipelines) -> None:
    model = SD3Model(tiny_sd3(dual=True))
    model.pipeline.transformer.fuse_qkv_projections()
    with pytest.raises(ValueError, match="leave out its QK-norm and its second attention"):
        velocity(model)


def test_fused_flux_edits_as_before_and_says_why_it_has_no_points(tiny_pipeline: Pipelines) -> None:
    plain, pipeline = FluxModel(tiny_pipeline(guided=True)), tiny_pipeline(guided=True)
    fused(pipeline)
    model, case = FluxModel(pipeline), Case("a", torch.rand(3, 16, 16), SOURCE, TARGET)
    ours, theirs = ([execute(one, FlowEdit(), Euler(), 3, [case], seed=0)] for one in (model, plain))
    check_same(ours, theirs)
    with pytest.raises(ValueError, match="call unfuse_qkv_projections"):
        execute(model, Injection(), Euler(), 3, [case], seed=0)
    pipeline.transformer.unfuse_qkv_projections()
    check_same(edited(model), edited(plain))


# quantised


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "package", "near"), [("int8", "torchao", 0.05), ("nf4", "bitsandbytes", 0.4)])
def test_hooks_act_and_edits_work_on_quantised_weights(
    kind: str, package: str, near: float, dtype: torch.dtype, build: Build
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    from fe.models.quantising import quantise

    plain, model = build(dtype=dtype), build(lambda pipeline: quantise(pipeline, kind, torch.device("cpu")), dtype=dtype)
    gap = (velocity(model) - velocity(plain)).abs().max()
    assert 0 < gap < near
    assert velocity(model).dtype == torch.float32
    assert model.dtype == dtype
    assert hash_model(model) != hash_model(plain)
    store, condition = FeatureStore(), model.condition([SOURCE], 1.0)
    recorded = model.field(condition, Record(store, list(model.points())))(TICK, latent())
    torch.testing.assert_close(recorded, model.velocity(0.5, latent(), condition))
    doubled = Inject(store, [point for point in model.points() if point.part == "v"], ratio=2.0)
    assert (model.field(condition, doubled)(TICK, latent()) - recorded).abs().max() > 1e-3
    assert all(feature.dtype == dtype for feature in store.values())
    assert all(torch.isfinite(outcome.latents).all() for outcome in edited(model))


def test_a_pipeline_may_come_quantised_by_diffusers(tiny_folder: Path) -> None:
    """With bitsandbytes diffusers does that on a GPU only, see test_machines."""
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    from diffusers import TorchAoConfig
    from diffusers.quantizers import PipelineQuantizationConfig

    config = PipelineQuantizationConfig(quant_mapping={"transformer": TorchAoConfig(quantization.Int8WeightOnlyConfig())})
    plain, pipeline = (
        FluxPipeline.from_pretrained(tiny_folder, quantization_config=rounding, torch_dtype=torch.bfloat16)
        for rounding in (None, config)
    )
    model = FluxModel(pipeline)
    assert 0 < (velocity(model) - velocity(FluxModel(plain))).abs().max() < 0.05
    edit, injected = edited(model)
    assert torch.isfinite(edit.latents).all()
    assert injected.edit.counts["injected"] > 0


@pytest.mark.parametrize(("kind", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_setup_rounds_the_blocks_of_the_largest_networks(kind: str, package: str, tiny_folder: Path) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    plain, model = (loaded(f"flux:{tiny_folder}", Setup(quantise=rounded)) for rounded in ("none", kind))
    parts = plain.pipeline.components
    changed = {
        name: {
            inner
            for inner, module in parts[name].named_modules()
            if isinstance(module, nn.Linear)
            and type(model.pipeline.components[name].get_submodule(inner).weight) is not nn.Parameter
        }
        for name in ("transformer", "vae", "text_encoder_2")
    }
    assert "single_transformer_blocks.1.attn.to_v" in changed["transformer"]
    assert "transformer_blocks.0.norm1.linear" in changed["transformer"]
    assert not changed["transformer"] & {"x_embedder", "context_embedder", "proj_out"}
    assert changed["vae"] == set()
    assert any(name.endswith("layer.0.SelfAttention.q") for name in changed["text_encoder_2"])
    assert any(name.endswith(".wo") for name in changed["text_encoder_2"]) == (kind == "int8")


@pytest.mark.parametrize(("kind", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_missing_package_is_one_sentence(kind: str, package: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fe.models import quantising

    def absent(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(quantising, "import_module", absent)
    with pytest.raises(ValueError, match=f"^{package} rounds weights to {kind}, .* pip install {package}$"):
        loaded(f"flux:{tiny_folder}", Setup(quantise=kind))


# offloaded


def whole_parts(pipeline: Any) -> None:
    pipeline.enable_model_cpu_offload(device="cpu")


def piece_by_piece(pipeline: Any) -> None:
    """What enable_sequential_cpu_offload does with every part."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)


def groups_of_blocks(pipeline: Any) -> None:
    cpu = torch.device("cpu")
    pipeline.enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=1)


def groups_of_leaves(pipeline: Any) -> None:
    cpu = torch.device("cpu")
    pipeline.enable_group_offload(cpu, cpu, offload_type="leaf_level")


@pytest.mark.parametrize("offload", [whole_parts, piece_by_piece, groups_of_blocks, groups_of_leaves])
def test_offloaded_pipelines_edit_as_before(offload: Callable[[Any], None], build: Build) -> None:
    check_same(edited(build(offload)), edited(build()))


def test_nothing_is_sent_to_where_an_offloaded_part_lies(build: Build) -> None:
    """Piece by piece, the weights of parts that do not work are on torch's device "meta", which computes nothing."""
    model = build(piece_by_piece)
    assert {model.pipeline.vae.device.type, model.network.device.type} == {"meta"}
    picture = torch.rand(1, 3, 16, 16)
    x = model.encode(picture)
    condition = model.condition([SOURCE], 2.0)
    devices = {x.device.type, model.velocity(0.5, x, condition).device.type, model.decode(x).device.type}
    assert devices == {"cpu"}


def test_weights_that_are_not_there_have_no_fingerprint(build: Build) -> None:
    assert hash_model(build(whole_parts)) == hash_model(build())
    with pytest.raises(ValueError, match=r"offloaded piece by piece.* use enable_model_cpu_offload\(\)"):
        hash_model(build(piece_by_piece))


def test_the_scenes_codec_may_be_offloaded(tiny_scenes: str) -> None:
    model, offloaded = loaded(tiny_scenes, Setup()), loaded(tiny_scenes, Setup())
    piece_by_piece(offloaded.pipeline)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(offloaded.decode(offloaded.encode(picture)), model.decode(model.encode(picture)))


def test_low_memory_on_a_cpu_means_tiles(tiny_folder: Path) -> None:
    plain, model = (loaded(f"flux:{tiny_folder}", Setup(low_memory=low)) for low in (False, True))
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for one in (plain, model):
        one.pipeline.vae.tile_latent_min_size = 8  # so that a small picture is a large one
        one.pipeline.vae.tile_sample_min_size = 16
    whole, tiled = (one.decode(latents) for one in (plain, model))
    assert torch.equal(plain.decode(latents[..., :8, :8]), model.decode(latents[..., :8, :8]))  # one tile
    assert whole.shape == tiled.shape
    assert 0 < (whole - tiled).abs().mean() < 0.05
    assert not any("_hf_hook" in vars(module) for module in model.network.modules())


def test_low_memory_on_a_device_brings_parts_one_by_one(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, torch.device]] = []
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr(FluxPipeline, "enable_model_cpu_offload", lambda self, device: asked.append(("offload", device)))
    monkeypatch.setattr(FluxPipeline, "to", lambda self, device: asked.append(("to", device)))
    model = loaded(f"flux:{tiny_folder}", Setup(device="mps", low_memory=True))
    assert asked == [("offload", torch.device("mps"))]
    assert {weight.device.type for weight in model.network.parameters()} == {"cpu"}
