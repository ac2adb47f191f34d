"""Names to objects: the one place below the command line that knows what "fireflow" means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from ..cases.base import CaseSet
from ..editors.base import Editor
from ..metrics.base import Score
from ..models.base import Loader, Model, Setup
from ..models.loading import read_index
from ..models.pipelines import PipelineLoader
from ..options import parse
from ..registry import CASES, EDITORS, METRICS, MODELS, SOLVERS, RegistryError
from ..solvers.base import Solver

Options = Mapping[str, Any]

KINDS: Final = {
    "FluxPipeline": "flux",
    "StableDiffusion3Pipeline": "sd3",
    "RectifiedFlowPipeline": "instaflow",
}
"""Which adapter drives a pipeline of that class; all others are driven through their own code."""


def build_solver(name: str, options: Options | None = None) -> Solver[Any]:
    """The solver called `name` with options as text or values. Raises RegistryError or OptionError."""
    kind = SOLVERS[name]
    solver: Solver[Any] = kind(**parse(kind, options or {}))
    return solver


def build_editor(name: str, options: Options | None = None) -> Editor:
    """The editor called `name` with options as text or values. Raises RegistryError or OptionError."""
    kind = EDITORS[name]
    editor: Editor = kind(**parse(kind, options or {}))
    return editor


def mask_editors() -> list[str]:
    """The names of the built-in editors that take a mask."""
    kinds: dict[str, type[Editor]] = {name: EDITORS[name] for name in EDITORS.builtin}
    return [name for name, kind in kinds.items() if kind.takes_mask]


def check_mask(editor: Editor) -> None:
    """Raise ValueError, naming those that do, if `editor` takes no mask."""
    if not editor.takes_mask:
        raise ValueError(f"{type(editor).__name__} takes no mask; {', '.join(mask_editors())} do")


def build_metric(name: str, options: Options | None = None) -> Score:
    """The metric called `name` with options as text or values. Raises RegistryError or OptionError."""
    kind = METRICS[name]
    metric: Score = kind(**parse(kind, options or {}))
    return metric


def build_cases(name: str, options: Options | None = None) -> CaseSet:
    """The case set called `name` with options as text or values. Raises RegistryError or OptionError."""
    kind = CASES[name]
    cases: CaseSet = kind(**parse(kind, options or {}))
    return cases


def model_kind(spec: str) -> tuple[str, str | None]:
    """The registry name of the model that `spec` names, and the folder or hub id it is to be read from (None: its own).

    `spec`: "scenes", "flux-dev", "kind:folder-or-hub-id", or a folder or hub id alone, whose index then says what it is.
    Raises RegistryError for a name that is neither, ValueError for an index that does not decide.
    """
    name, _, source = spec.partition(":")
    if name in MODELS:
        return name, source or None
    if "/" not in name and not Path(spec).is_dir():
        raise RegistryError(f"{MODELS.suggest(name)} (or name a folder, or a hub id OWNER/NAME)")
    return pipeline_kind(str(read_index(spec).get("_class_name"))), spec


def pipeline_kind(pipeline: str) -> str:
    """The registry name of the models whose pipelines are of that diffusers class. Raises ValueError if it does not decide."""
    if pipeline == "StableDiffusionPipeline":
        raise ValueError(
            "a StableDiffusionPipeline may predict a flow's velocity or noise, and its files do not say which; "
            'write instaflow:MODEL or sd15:MODEL (in Python, kind="instaflow" or kind="sd15")'
        )
    return KINDS.get(pipeline, "diffusers")


def build_loader(kind: str, options: Options | None = None) -> Loader:
    """The loader of that registry name with options as text or values. Raises RegistryError or OptionError."""
    found = MODELS[kind]
    loader: Loader = found(**parse(found, options or {}))
    return loader


def load_model(spec: str, setup: Setup | None = None, options: Options | None = None) -> Model[Any]:
    """The model that `spec` names (see `model_kind`), with the model's own options as text or values.

    A setup's device "auto" takes a GPU where there is one. Raises RegistryError for an unknown name, OptionError, ValueError
    if the model cannot be had.
    """
    kind, source = model_kind(spec)
    loader, setup = build_loader(kind, options), setup or Setup(device="auto")
    if source is None and isinstance(loader, PipelineLoader) and loader.home is None:
        raise ValueError(f"the model {kind!r} stands for no weights of its own: write {kind}:FOLDER or {kind}:OWNER/NAME")
    return loader.load(source, replace(setup, device=pick_device(setup.device)))


def wrap_pipeline(pipeline: Any, kind: str | None = None, options: Options | None = None) -> Model[Any]:
    """The model around a pipeline object, whose parts stay where and as they are. kind: the registry name of the model, where
    the pipeline's class does not decide it. Raises RegistryError, OptionError, or ValueError if it cannot be driven."""
    from diffusers import DiffusionPipeline  # takes seconds, unless a pipeline is at hand

    if not isinstance(pipeline, DiffusionPipeline):
        raise ValueError(f"a model is a name, a folder, a hub id or a diffusers pipeline, got {type(pipeline).__name__}")
    name, parts = type(pipeline).__name__, pipeline.components
    absent = [part for part in ("scheduler", "transformer", "unet") if part in parts and parts[part] is None]
    if absent:
        raise ValueError(f"this {name} has no {absent[0]}, without which it has no velocity; load one that has")
    return build_loader(kind or pipeline_kind(name), options).wrap(pipeline)


def pick_device(device: str) -> str:
    """`device` itself, or for "auto" the GPU where there is one. Raises ValueError for what is no device, or is not here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    asked = re.fullmatch(r"(cpu|mps|cuda)(?::(\d+))?", device)
    if asked is None or (asked[2] and asked[1] != "cuda"):
        raise ValueError(f"{device!r} is no device; use auto, cpu, cuda, cuda:1 or mps")
    here = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}[asked[1]]
    if here == 0:
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU of that kind here; use --device cpu")
    if int(asked[2] or 0) >= here:
        raise ValueError(f"device {device!r} was asked for, but the last GPU here is cuda:{here - 1}")
    return device
