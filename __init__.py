"""fe: compare ODE solvers and editing strategies for rectified-flow image models.

Pick a model (a velocity field), a solver (how to walk it), an editor (what to walk) and some cases (pictures and
prompts): `fe` says what each combination costs, counted at the network, and what it gives.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "load_model": "api",
    "edit": "api",
    "invert": "api",
    "reconstruct": "api",
    "generate": "api",
    "draw_cases": "api",
    "compare": "api",
    "reproduce": "api",
    "Tick": "ode",
    "TimeGrid": "ode",
    "SOLVERS": "registry",
    "EDITORS": "registry",
    "MODELS": "registry",
    "METRICS": "registry",
    "CASES": "registry",
    "Solver": "solvers.base",
    "Step": "solvers.base",
    "integrate": "solvers.base",
    "Model": "models.base",
    "Editor": "editors.base",
    "Metric": "metrics.base",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing the package costs nothing (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fe' has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
