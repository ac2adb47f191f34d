"""What kind of pipeline it is: whether it can be driven at all, and how its `__call__` wants to be asked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

NEGATIVE = " "
"""What a pipeline with `true_cfg_scale` is guided away from: it acts only where there is a negative prompt, however short."""

DEFAULT_TOKENS = 512
"""Of pipelines that do not say how many tokens of a prompt they read."""

Size = tuple[int, int]
"""Height and width of a picture in pixels."""


@dataclass(frozen=True)
class Kind:
    """How `pipeline` is asked. `guided_by`: the argument that takes the guidance. `unguided`: the value of it at which a
    network without embedded guidance is not guided at all: 1 in v_neg + g (v - v_neg), 0 in v + g (v - v_neg)."""

    pipeline: Any
    guided_by: str
    unguided: float = 1.0

    def arguments(
        self, prompts: Sequence[str], guidance: float, size: Size, steps: int, latents: Tensor | None, output: str = "pt"
    ) -> dict[str, Any]:
        """The arguments of one call. `guidance` is the project's, 1 for none. `latents`: as `given` makes them."""
        scale = guidance + self.unguided - 1.0
        asked: dict[str, Any] = {
            "prompt": list(prompts),  # some pipelines write into the list
            "height": size[0],
            "width": size[1],
            "num_inference_steps": steps,
            "latents": latents,
            "output_type": output,
            self.guided_by: scale if self.embedded else max(self.unguided, scale),
        }
        if self.guided_by == "true_cfg_scale" and guidance > 1.0:
            asked["negative_prompt"] = [NEGATIVE] * len(prompts)
        known = parameters(type(self.pipeline))
        if "max_sequence_length" in known:
            asked["max_sequence_length"] = self.longest
        if "use_resolution_binning" in known:
            asked["use_resolution_binning"] = False  # it would change the picture's size
        return asked

    @property
    def embedded(self) -> bool:
        """Whether the network reads the guidance as a number, instead of being guided by a second evaluation."""
        return embeds_guidance(self.pipeline)

    @property
    def longest(self) -> int:
        """Tokens that it reads of a prompt: as many as it reads by itself, but padding beyond what the tokenizers know would
        only cost. (Where a text encoder is left out, its tokens are empty ones that the network was trained to expect.)"""
        known = parameters(type(self.pipeline)).get("max_sequence_length")
        own = DEFAULT_TOKENS if known is None or known.default is None else int(known.default)
        lengths = [int(reader.model_max_length) for reader in tokenizers(self.pipeline)]
        left_out = any(part is None for key, part in self.pipeline.components.items() if key.startswith("tokenizer"))
        return own if left_out or not lengths else min(own, max(lengths))

    @property
    def multiple(self) -> int:
        """Sides of its pictures in pixels are multiples of this."""
        config = network_of(self.pipeline).config
        patches = config.get("patch_size") or config.get("all_patch_size") or 1
        patch = patches if isinstance(patches, int) else max(patches)
        return math.lcm(int(self.pipeline.vae_scale_factor) * patch, int(self.pipeline.image_processor.config.vae_scale_factor))

    def given(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) as the pipeline takes them for its argument `latents`."""
        pack = getattr(self.pipeline, "_pack_latents", None)
        if pack is None or getattr(self.pipeline, "_unpack_latents", None) is None:
            return latents  # it holds them as they are, or packs them itself (Flux2)
        rows, channels, height, width = latents.shape
        sizes = {"batch_size": rows, "num_channels_latents": channels, "height": height, "width": width}
        packed: Tensor = _by_name(pack, {"latents": latents.contiguous(), **sizes})
        return packed

    def latents(self, state: Tensor, size: Size) -> Tensor:
        """The state of the pipeline's loop as latents (B, C, h, w), for a picture of that size."""
        unpack = getattr(self.pipeline, "_unpack_latents", None)
        height, width = size
        if unpack is not None:
            known = {"height": height, "width": width, "vae_scale_factor": self.pipeline.vae_scale_factor}
            state = _by_name(unpack, {"latents": state, **known})
        elif state.ndim == 3:
            state = state.mT.reshape(len(state), -1, height // self.multiple, width // self.multiple)
        return state.squeeze(2) if state.ndim == 5 else state


def check_class(kind: type) -> None:
    """Raise ValueError (one sentence) for a class of pipelines that do not draw pictures from prompts alone, or not so that
    their velocity could be asked for. No weights are needed to tell."""
    name, known = kind.__name__, parameters(kind)
    required = [key for key, value in known.items() if value.default is inspect.Parameter.empty and key != "prompt"]
    if "num_frames" in known:
        raise ValueError(f"{name} makes videos; only text-to-image pipelines can be driven")
    if required or "strength" in known:
        wanted = required[0] if required else "image"
        raise ValueError(f"{name} needs {wanted!r} beside the prompt; only text-to-image pipelines can be driven")
    for needed in ("prompt", "latents", "height", "width", "num_inference_steps", "output_type"):
        if needed not in known:
            raise ValueError(f"{name} takes no {needed!r}, so its velocity cannot be asked for")
    if getattr(kind, "encode_prompt", None) is None:
        raise ValueError(f"{name} has no encode_prompt, so its prompts cannot be encoded once and for all")


def kind_of(pipeline: Any) -> Kind:
    """How `pipeline` is asked. Raises ValueError (one sentence) for one that is no text-to-image pipeline of a flow."""
    name, known = type(pipeline).__name__, parameters(type(pipeline))
    _check_scheduler(pipeline, name)
    check_class(type(pipeline))
    encoders = [part for key, part in pipeline.components.items() if key.startswith("text_encoder")]
    if encoders and all(encoder is None for encoder in encoders):
        raise ValueError(f"this {name} has no text encoders; load one that has")
    denoisers = [key for key, part in pipeline.components.items() if _denoises(key) and part is not None]
    if len(denoisers) != 1:
        raise ValueError(f"{name} has {len(denoisers)} denoising networks ({', '.join(denoisers)}); only one can be driven")
    if embeds_guidance(pipeline) and "guidance_scale" in known:
        return Kind(pipeline, "guidance_scale")
    for argument in ("true_cfg_scale", "guidance_scale"):
        if argument in known:
            return Kind(pipeline, argument)
    raise ValueError(f"{name} takes no guidance_scale, so it cannot be guided as editors ask")


def network_of(pipeline: Any) -> Any:
    """The denoising network."""
    return next(part for key, part in pipeline.components.items() if _denoises(key) and part is not None)


def embeds_guidance(pipeline: Any) -> bool:
    return bool(network_of(pipeline).config.get("guidance_embeds"))


def tokenizers(pipeline: Any) -> list[Any]:
    """All of them, taken out of the processors that some are part of."""
    found = [part for key, part in pipeline.components.items() if key.startswith("tokenizer") and part is not None]
    return [getattr(part, "tokenizer", part) for part in found]


def parameters(kind: Any) -> Mapping[str, inspect.Parameter]:
    """The named arguments of the `__call__` of a class of pipelines."""
    found = inspect.signature(kind.__call__).parameters
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: value for name, value in found.items() if value.kind in plain and name != "self"}


def _denoises(key: str) -> bool:
    return any(what in key for what in ("transformer", "unet", "prior", "controlnet"))


def _check_scheduler(pipeline: Any, name: str) -> None:
    """Raise ValueError unless the scheduler walks dx/dsigma = noise - image from sigma 1 to 0, as FlowMatchEuler does. One that
    is meant for noise prediction but told to walk a flow (Sana's DPMSolverMultistep) will do: only its levels are used."""
    scheduler = pipeline.components.get("scheduler")
    if scheduler is None:
        raise ValueError(f"{name} has no scheduler of its own, so it cannot be driven")
    config = scheduler.config
    told = config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas")
    if type(scheduler).__name__ != "FlowMatchEulerDiscreteScheduler" and not told:
        raise ValueError(
            f"{name} is not known to be flow-based: its scheduler is a {type(scheduler).__name__}; only pipelines with a "
            "FlowMatchEulerDiscreteScheduler, or with one that is set to flow_prediction and use_flow_sigmas, can be driven"
        )
    if config.get("invert_sigmas"):
        raise ValueError(f"{name} runs its noise levels upwards (invert_sigmas), which cannot be driven")


def _by_name(function: Callable[..., Tensor], values: Mapping[str, Any]) -> Tensor:
    """`function` of those of the `values` that it names."""
    return function(**{name: values[name] for name in inspect.signature(function).parameters})
