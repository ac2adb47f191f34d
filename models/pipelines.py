"""Loaders around diffusers pipelines: read from a folder or a hub, or handed over as they are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, final

from torch import nn

from .architectures import ARCHITECTURES
from .base import Loader, Model, Setup
from .fitting import fitting
from .loading import Layout, load_pipeline
from .preparing import finished, placed


class PipelineLoader(Loader):
    """A loader of a model around a diffusers pipeline. `layout`: what it can drive. `home`: the hub id that its name stands
    for (None: the user says which)."""

    layout: ClassVar[Layout]
    home: ClassVar[str | None] = None

    @final
    def load(self, source: str | None, setup: Setup) -> Model[Any]:
        where = source or self.home
        if where is None:
            raise ValueError(f"{type(self).__name__} needs a folder or hub id")
        if setup.weights == "random":
            return self._random(where, setup)
        return finished(self.wrap(load_pipeline(self.layout, where, setup)), setup)

    def _random(self, where: str, setup: Setup) -> Model[Any]:
        own = [name for name, architecture in ARCHITECTURES.items() if architecture.pipeline in self.layout.pipelines]
        if where not in own:
            raise ValueError(f"random weights fill a published architecture, {' or '.join(own)}; got {where!r}")
        from .random_weights import random_pipeline  # brings in transformers

        smaller = setup.low_memory or setup.quantise != "none"  # it may not fit the device before that
        built = replace(setup, device="cpu") if smaller else setup
        pipeline = fitting(lambda: random_pipeline(ARCHITECTURES[where], self.layout, built), setup)
        model = self.wrap(placed(pipeline, setup))
        model.trained = False
        return finished(model, setup)

    @abstractmethod
    def wrap(self, pipeline: Any) -> Model[Any]: ...


def pipeline_parts(pipeline: Any) -> dict[str, nn.Module | str]:
    """What the results of a model around `pipeline` depend on: its networks, but for the one that only looks at what is
    drawn, the schedule, and the scale of the codec's latents."""
    networks = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    networks.pop("safety_checker", None)
    settings = {"scheduler": _plain(pipeline.scheduler.config)}
    if "vae" in networks:
        settings["vae's scale"] = _plain({name: pipeline.vae.config.get(name) for name in _SCALE})
    return networks | settings


_SCALE = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


def _plain(config: Mapping[str, Any]) -> str:
    """A configuration as text, without what diffusers notes for itself: where it lay, and by which version it was written."""
    return repr(sorted((name, value) for name, value in config.items() if not name.startswith("_")))
