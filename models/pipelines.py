"""Loaders around diffusers pipelines: read from a folder or a hub, or handed over as they are."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, final

from .architectures import ARCHITECTURES
from .base import Loader, Model, Setup
from .loading import Layout, load_pipeline


class PipelineLoader(Loader):
    """A loader of a model around a diffusers pipeline. `layout`: what it can drive. `home`: the hub id that its name stands
    for (None: the user says which)."""

    layout: ClassVar[Layout]
    home: ClassVar[str | None] = None

    @final
    def load(self, source: str | None, setup: Setup) -> Model[Any]:
        where = source or self.home
        if where is None:
            raise ValueError(f"{type(self).__name__} needs a folder or hub id: write KIND:FOLDER or KIND:OWNER/NAME")
        if setup.weights == "random":
            return self._random(where, setup)
        return self.wrap(load_pipeline(self.layout, where, setup))

    def _random(self, where: str, setup: Setup) -> Model[Any]:
        fitting = [name for name, architecture in ARCHITECTURES.items() if architecture.pipeline in self.layout.pipelines]
        if where not in fitting:
            raise ValueError(f"random weights fill a published architecture, {' or '.join(fitting)}; got {where!r}")
        from .random_weights import random_pipeline  # brings in transformers

        model = self.wrap(random_pipeline(ARCHITECTURES[where], self.layout, setup))
        model.trained = False
        return model

    @abstractmethod
    def wrap(self, pipeline: Any) -> Model[Any]:
        """The model around `pipeline`, whose parts stay where and as they are.
        Raises ValueError (one sentence) if this loader cannot drive it."""
