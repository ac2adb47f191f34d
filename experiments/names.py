"""Names to objects: the one place below the command line that knows what "fireflow" means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..cases.base import CaseSet
from ..editors.base import Editor
from ..metrics.base import Metric
from ..models.base import Model
from ..options import parse
from ..registry import CASES, EDITORS, METRICS, MODELS, SOLVERS
from ..solvers.base import Solver

Options = Mapping[str, str]


def build_solver(name: str, options: Options | None = None) -> Solver[Any]:
    """The solver called `name` with options given as text. Raises RegistryError or OptionError."""
    kind = SOLVERS[name]
    solver: Solver[Any] = kind(**parse(kind, options or {}))
    return solver


def build_editor(name: str, options: Options | None = None) -> Editor:
    """The editor called `name` with options given as text. Raises RegistryError or OptionError."""
    kind = EDITORS[name]
    editor: Editor = kind(**parse(kind, options or {}))
    return editor


def build_metric(name: str) -> Metric:
    """The metric called `name`. Raises RegistryError."""
    metric: Metric = METRICS[name]()
    return metric


def build_cases(name: str, options: Options | None = None) -> CaseSet:
    """The case set called `name` with options given as text. Raises RegistryError or OptionError."""
    kind = CASES[name]
    cases: CaseSet = kind(**parse(kind, options or {}))
    return cases


def load_model(spec: str, *, device: str = "auto", dtype: str = "float32", local_only: bool = True) -> Model[Any]:
    """The model that `spec` names: "scenes", "flux-dev", or "kind:folder-or-hub-id" ("flux:/models/mine").

    `device`: "auto" takes a GPU where there is one. Raises RegistryError for an unknown name, ValueError if it cannot be had.
    """
    name, _, source = spec.partition(":")
    loader = MODELS[name]
    model: Model[Any] = loader.load(  # type: ignore[attr-defined]  # the table holds Loader subclasses
        source or None, device=pick_device(device), dtype=dtype, local_only=local_only
    )
    return model


def pick_device(device: str) -> str:
    """`device` itself, or for "auto" the GPU where there is one. Raises ValueError if a GPU is asked for that is not here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU here; use --device cpu")
    return device
