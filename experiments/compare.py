"""A comparison from its request to its summaries, for the command line and for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cases.base import Case
from ..metrics.base import Result
from ..models.base import Model
from ..registry import EDITORS, SOLVERS, RegistryError
from .environment import environment
from .execute import execute
from .fingerprint import hash_model, plan_hash
from .folder import RunFolder
from .names import build_cases, build_loader, load_model, model_kind, pick_device
from .plan import Comparison, Method, Row, make_rows, metrics_for
from .run import Cell, Metrics, Watch, make_cells, run
from .summary import Summary, summarise


@dataclass(frozen=True)
class Prepared:
    """A comparison whose names have become objects, checked by a dry run; nothing has been computed yet."""

    plan: Comparison
    model: Model[Any]
    cases: Sequence[Case]
    metrics: Metrics
    rows: Sequence[Row]
    cells: Sequence[Cell]

    @property
    def on_gpu(self) -> bool:
        """Whether the model runs on a GPU."""
        return pick_device(self.plan.setup.device).startswith("cuda")

    @property
    def hash(self) -> str:
        """The identity of the comparison: that of its cells."""
        return plan_hash([cell.key for cell in self.cells])


def usable(methods: Iterable[Method]) -> tuple[tuple[Method, ...], tuple[str, ...]]:
    """The methods whose editor and solver can be imported, and why others cannot, a sentence each.
    Raises RegistryError if a name is unknown or no method is left."""
    kept: list[Method] = []
    faults: dict[str, None] = {}
    for method in methods:
        try:
            EDITORS[method.editor], SOLVERS[method.solver]
        except RegistryError as fault:
            if method.editor not in EDITORS or method.solver not in SOLVERS:
                raise
            faults[str(fault)] = None
        else:
            kept.append(method)
    if not kept:
        raise RegistryError("; ".join(faults))
    return tuple(kept), tuple(faults)


def prepare(plan: Comparison) -> Prepared:
    """Build what a comparison needs. Raises RegistryError, OptionError, ValueError or LookupError, in one sentence each;
    OSError where the weights of a metric are missing."""
    cases = build_cases(plan.cases, plan.settings.get(plan.cases)).take(plan.count)
    metrics = metrics_for(cases)
    _rehearse(metrics, cases)
    options = plan.settings.get("model", {})
    model = load_model(plan.model, plan.setup, options)
    rows = make_rows(plan, model, cases, [task for task, found in metrics.items() if found])
    return Prepared(plan, model, cases, metrics, rows, make_cells(rows, cases, hash_model(model), _numerics(plan, options)))


def _numerics(plan: Comparison, options: Mapping[str, str]) -> str:
    """What the numbers depend on besides the weights: how the model computes, and its own options."""
    setup, device = plan.setup, pick_device(plan.setup.device).partition(":")[0]
    loader = build_loader(model_kind(plan.model)[0], options)
    return "|".join([setup.dtype, device, str(setup.compiled), setup.quantise, repr(loader)])


def _rehearse(metrics: Metrics, cases: Sequence[Case]) -> None:
    """Let every metric score a source as it is, so that one whose weights are missing says so before the work."""
    for metric in {metric for by_name in metrics.values() for metric in by_name.values()}:
        case = next(case for case in cases if metric.suits(case))
        nothing = torch.zeros(1)
        metric(case, Result(case.picture, nothing, nothing))


def open_folder(prepared: Prepared, out: Path, overwrite: bool) -> RunFolder:
    """The folder for the run's results, with its run.json. Raises ValueError if it is taken (see RunFolder.open)."""
    here = {"comparison": prepared.plan.described()} | environment(pick_device(prepared.plan.setup.device))
    return RunFolder.open(out, prepared.hash, here, overwrite)


def carry_out(prepared: Prepared, folder: RunFolder, watch: Watch, *, batch: int, pictures: bool) -> list[Summary]:
    """Run what is not done yet, and summarise it all: one summary for each task."""
    run(prepared.model, prepared.cells, prepared.metrics, folder, watch, batch=batch, pictures=pictures)
    records = folder.done({cell.key for cell in prepared.cells})
    tasks = dict.fromkeys(row.task for row in prepared.rows)
    return [summarise(task, prepared.cells, records, prepared.metrics[task]) for task in tasks]


def paths(prepared: Prepared) -> Mapping[str, Sequence[Tensor]]:
    """The noise-free path of the first case under every edit that is no control: decoded states, by the row's name."""
    case, seed = prepared.cases[0], prepared.plan.seeds[0]
    walked = {}
    for row in prepared.rows:
        if row.task == "edit" and not row.control:
            outcome = execute(prepared.model, row.editor, row.solver, row.steps, [case], seed, keep_path=True)
            walked[row.name] = [prepared.model.decode(state)[0] for state in outcome.edit.path]
    return walked
