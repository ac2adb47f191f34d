"""One picture on its way through a model, with its progress shown where somebody sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from torch import Tensor

from ..cases.base import Case
from ..experiments.execute import Outcome, encode, execute
from ..experiments.methods import Way
from ..experiments.probe import probe
from ..experiments.subjects import Fitted
from ..models.base import Model
from .progress import counted, visible


def executed(
    doing: str,
    way: Way,
    model: Model[Any],
    fitted: Fitted,
    seed: int,
    progress: bool,
    source: Tensor | None = None,
    keep_path: bool = False,
) -> Outcome:
    """One case through the model, with its progress shown, and before it what it will keep in memory."""
    masks = None if fitted.mask is None else fitted.mask[None]
    source = encode(model, [fitted.case]) if source is None else source
    with watching(doing, way, model, fitted.case, progress, source) as watch:
        return execute(
            model,
            way.editor,
            way.solver,
            way.steps,
            [fitted.case],
            seed,
            source=source,
            masks=masks,
            keep_path=keep_path,
            watch=watch,
        )


@contextmanager
def watching(
    doing: str, way: Way, model: Model[Any], case: Case, progress: bool, latent: Tensor | None = None
) -> Iterator[Callable[[int], None] | None]:
    """What is to be told the number of network calls done, where somebody sees them; first, what will be kept in memory."""
    console = Console(stderr=True)
    if not progress:
        yield None
        return
    budget = "" if latent is None else way.editor.budget(model, way.solver, model.grid(way.steps, latent.shape), latent)
    if budget:
        console.print(f"{doing} {budget}", markup=False, highlight=False, soft_wrap=True)
    if not visible(console):
        yield None
        return
    foretold = probe(way.editor, way.solver, way.steps, model, (case.source, case.target)).calls
    with counted(console, doing, foretold) as watch:
        yield watch
