"""InstaFlow and 2-rectified flow against what their own pipeline computes on a tiny random network (tests/golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from fe.editors.base import Request
from fe.editors.controls import FromNoise
from fe.experiments.meter import metered
from fe.models.guidance import GuidedCondition
from fe.models.instaflow import UNetModel
from fe.solvers.base import walk
from fe.solvers.euler import Euler
from torch import Tensor, nn

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
CASES = ["if_2rf_n5_cfg15", "if_instaflow_n1_g1"]


class Embedded(UNetModel):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """A model whose only prompt has the embeddings that were recorded with a case."""

    tensors: dict[str, Tensor]

    def condition(self, prompts: Sequence[str], guidance: float) -> GuidedCondition:
        return GuidedCondition((self.tensors["prompt_embeds"],), (self.tensors["negative_prompt_embeds"],), (guidance,))


@pytest.fixture
def embedded(golden_network: Callable[[str], tuple[nn.Module, dict[str, Any]]]) -> Callable[[dict[str, Tensor]], Embedded]:
    def build(tensors: dict[str, Tensor]) -> Embedded:
        parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
        pipeline = StableDiffusionPipeline(
            unet=golden_network("unet_a")[0],
            scheduler=PNDMScheduler(steps_offset=1),
            requires_safety_checker=False,
            **parts,
        )
        model = Embedded(pipeline)
        model.tensors = tensors
        return model

    return build


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_every_call_is_the_published_one(name: str, golden: Golden, embedded: Callable[..., Embedded]) -> None:
    case, tensors = golden(name)
    model, latents = embedded(tensors), tensors["latents"]
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def meet(module: nn.Module, inputs: Any, output: tuple[Tensor]) -> None:
        calls.append((inputs[0], inputs[1], output[0]))

    handle = model.network.register_forward_hook(meet)
    try:
        field = model.field(model.condition(["tar"], case["guidance_scale"]))
        states = [step.x for step in walk(Euler(), field, latents, model.grid(case["num_inference_steps"], latents.shape))]
    finally:
        handle.remove()
    trajectory = torch.stack([latents, *states])
    torch.testing.assert_close(trajectory, tensors["traj"], atol=1e-4, rtol=0)
    for x, t, v, call in zip(tensors["calls_x"], tensors["calls_t"], tensors["calls_v"], calls, strict=True):
        order = [1, 0][: len(x)] if len(x) == 2 else [0]  # the pipeline puts the negative row first
        torch.testing.assert_close(call[0], x[order], atol=1e-4, rtol=0)
        torch.testing.assert_close(call[1], t[order], atol=1e-4, rtol=0)
        torch.testing.assert_close(call[2], v[order], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_generation(name: str, golden: Golden, embedded: Callable[..., Embedded]) -> None:
    case, tensors = golden(name)
    model, latents = embedded(tensors), tensors["latents"]
    grid = model.grid(case["num_inference_steps"], latents.shape)
    with metered(model.network) as meter:
        edit = FromNoise(target_guidance=case["guidance_scale"]).edit(
            model, Request(latents, ("src",), ("tar",)), Euler(), grid, lambda step, draw=0: latents
        )
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    assert {"transformer_calls": meter.calls, "batch_rows": meter.rows} == case["nfe"]
