"""The small FLUX of the scenes world, which ships with the package and is the default model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..scenes.attributes import VOCABULARY
from ..scenes.render import SIZE
from .base import Loader, Setup
from .flux import LAYOUT, FluxModel
from .loading import load_pipeline
from .preparing import finished, placed

if TYPE_CHECKING:
    from diffusers import FluxPipeline


@dataclass(frozen=True)
class ScenesLoader(Loader):
    """The shipped weights, or a folder of the same layout (a training of one's own, say). Prompts may use only the words of
    the scenes world: its text encoders know no others."""

    def load(self, source: str | None, setup: Setup) -> FluxModel:
        if setup.weights == "random":
            return _random(source, setup)
        return finished(_model(load_pipeline(LAYOUT, source or _shipped(), setup)), setup)


def random_scenes(seed: int) -> FluxModel:
    """The scenes model as shipped but with a transformer that was never trained, its weights drawn from `seed`: a control for
    whatever is claimed for the trained one. On the CPU, in float32. Raises ValueError as `ScenesLoader.load` does."""
    from diffusers import FluxTransformer2DModel  # takes seconds: only when a model is wanted

    pipeline = load_pipeline(LAYOUT, _shipped(), Setup())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = FluxTransformer2DModel.from_config(pipeline.transformer.config)
    pipeline.register_modules(transformer=fresh.eval().requires_grad_(False))
    return _model(pipeline)


def _random(source: str | None, setup: Setup) -> FluxModel:
    if source is not None:
        raise ValueError(f"random weights take the shipped model's shape, and {source!r} has its own; name scenes alone")
    pipeline = random_scenes(0).pipeline
    pipeline.transformer.to(setup.torch_dtype)
    model = _model(placed(pipeline, setup))
    model.trained = False
    return finished(model, setup)


def _model(pipeline: FluxPipeline) -> FluxModel:
    return FluxModel(pipeline, vocabulary=VOCABULARY, side=SIZE)


def _shipped() -> str:
    from ..scenes.network import WEIGHTS  # brings in diffusers

    if not Path(WEIGHTS, "model_index.json").is_file():
        raise ValueError(
            "the weights of the scenes model are missing from this installation; install the package again, or train them "
            "with `python -m fe.scenes.train`"
        )
    return str(WEIGHTS)
