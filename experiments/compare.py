"""A comparison from its request to its results, for the command line and for scripts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cases.base import Case
from ..metrics.base import Metric, Result, Score, SetMetric, Task
from ..models.base import Model
from .bench import Bench, Metrics, in_a_line
from .cells import Cell, check_ids, groups, make_cells, part
from .environment import environment
from .execute import encode, execute
from .fingerprint import hash_case, hash_metrics, hash_model, ingredients, plan_hash
from .folder import RunFolder
from .manifest import Manifest
from .names import build_cases, build_loader, load_model, model_kind, pick_device
from .plan import Comparison, scores_for
from .results import Results, read_results
from .rows import Row, make_rows
from .run import Effort, Watch, run
from .set_scores import write_sets
from .sets import completed, references
from .subjects import fit_case
from .words import Shard
from .workers import Job, run_on_workers

PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Prepared:
    """A comparison whose names have become objects, checked by a dry run; nothing has been computed yet. `loaded`: whether the
    plan says how to load the model; `shard`: the part that is to be run here (None: all); `made_of`: what the cells' keys are
    made of. `metrics` score one result, `sets` a row's pictures together; `absent`: those whose weights are not here, with the
    reason; `columns`: the names of all of them, in the order of the tables. Raises ValueError if there are more shards than
    cases."""

    plan: Comparison
    model: Model[Any]
    device: str
    cases: Sequence[Case]
    metrics: Metrics
    rows: Sequence[Row]
    cells: Sequence[Cell]
    loaded: bool = True
    shard: Shard | None = None
    made_of: Mapping[str, str] = field(default_factory=dict)
    sets: Mapping[Task, Mapping[str, SetMetric]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[Task, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shard is not None:
            part(self.cells, self.shard)  # a shard of nothing is refused before a folder is made for it

    @property
    def mine(self) -> Sequence[Cell]:
        """The cells that are to be run here: those of the shard."""
        return self.cells if self.shard is None else part(self.cells, self.shard)

    @property
    def hash(self) -> str:
        """The identity of the comparison: that of its cells, and of its metrics."""
        return plan_hash((cell.key for cell in self.cells), hash_metrics(self.scores))

    @property
    def scores(self) -> Mapping[Task, Mapping[str, Score]]:
        """The metrics of both kinds that are at hand."""
        return {task: {**self.metrics.get(task, {}), **self.sets.get(task, {})} for task in self.columns}

    @property
    def name(self) -> str:
        """A folder's name that the same comparison always gets, and no other: an edited solver, an edited metric or new weights
        go elsewhere."""
        kind = re.sub(r"[^\w-]", "", self.plan.model.partition(":")[0])
        return f"compare-{kind}-{self.hash[:8]}"

    @property
    def manifest(self) -> Manifest:
        """What is written down of it beside its results."""
        return Manifest(
            plan=self.hash,
            comparison=self.plan.described(),
            rows=tuple(row.heading for row in self.rows),
            cases=tuple(case.id for case in self.cases),
            metrics={task: tuple(names) for task, names in self.columns.items()},
            cells=len(self.cells),
            trained=self.model.trained,
            loaded=self.loaded,
            device=self.device,
            shard=None if self.shard is None else str(self.shard),
            made_of=self.made_of,
            absent=self.absent,
        )


def prepare(plan: Comparison, model: Model[Any] | None = None, elsewhere: bool = False) -> Prepared:
    """Build what a comparison needs. model: where it is at hand already; then the plan's model is but its name, and the plan's
    setup is not looked at. elsewhere: the model will compute in other processes; here it is on the CPU, whatever the plan's
    device, and serves to tell what there is to do. Raises RegistryError, OptionError, ValueError or LookupError, in one
    sentence each."""
    cases = build_cases(plan.cases, plan.case_options).take(plan.count)
    check_ids(case.id for case in cases)
    scores = scores_for(plan, cases)
    absent = _absent(scores, cases)
    options = plan.settings.get("model", {})
    loaded = model is None
    if model is None:
        known = elsewhere and plan.setup.device != "auto"  # a GPU that is named need not be here
        device = plan.setup.device if known else pick_device(plan.setup.device)
        model = load_model(plan.model, replace(plan.setup, device="cpu") if elsewhere else plan.setup, options)
        numerics = _numerics(plan, device, options)
        cases, hashes = _settled(cases, model)
    else:
        cases, hashes = _settled(cases, model)
        latents = encode(model, cases[:1])
        device, numerics = str(latents.device), as_it_is(model, latents)
    rows = make_rows(plan, model, cases, [task for task, found in scores.items() if found])
    cells = make_cells(rows, cases, hash_model(model), numerics, hashes)
    _check_references(scores, cases, rows)
    ready = {task: {name: one for name, one in found.items() if name not in absent} for task, found in scores.items()}
    return Prepared(
        plan,
        model,
        device,
        cases,
        metrics={task: {k: one for k, one in found.items() if isinstance(one, Metric)} for task, found in ready.items()},
        rows=rows,
        cells=cells,
        loaded=loaded,
        made_of=ingredients(model, numerics, rows, hashes, distinct(ready)),
        sets={task: {k: one for k, one in found.items() if isinstance(one, SetMetric)} for task, found in ready.items()},
        absent=absent,
        columns={task: tuple(found) for task, found in scores.items()},
    )


def _settled(cases: Sequence[Case], model: Model[Any]) -> tuple[Sequence[Case], Mapping[str, str]]:
    """The cases with their pictures in sizes that `model` takes, as `fe edit` brings them there, and their hashes by id. Every
    picture is looked at once, and stored ones are not kept; what is done to one is told as a warning. Cases with a truth stay
    as they are. Raises ValueError naming the case that cannot be brought there."""
    settled, hashes, noted = [], {}, dict[str, list[str]]()
    for case in cases:
        suited, notes = _suited(case, model)
        settled.append(suited)
        hashes[case.id] = hash_case(suited)
        if notes:
            noted.setdefault("; ".join(notes), []).append(case.id)
    for said, (first, *others) in noted.items():
        also = f" and {len(others)} more" if others else ""
        warnings.warn(f"{first}{also}: {said}", stacklevel=2)
    return settled, hashes


def _suited(case: Case, model: Model[Any]) -> tuple[Case, Sequence[str]]:
    if case.truth is not None or not case.is_picture:
        return case, ()
    try:
        return fit_case(case, model)
    except ValueError as fault:
        raise ValueError(f"{case.id}: {fault}") from fault


def _absent(scores: Mapping[Task, Mapping[str, Score]], cases: Sequence[Case]) -> dict[str, str]:
    """The metrics that cannot be had here, by name, with the reason. Every other one scores a source as it is, so that what is
    wrong with it is said before the work."""
    found: dict[str, str] = {}
    for name, score in dict(chain.from_iterable(named.items() for named in scores.values())).items():
        try:
            reason = score.missing()
            if not reason:
                _rehearse(score, next(case for case in cases if score.suits(case)))
        except (OSError, ImportError) as fault:  # weights that are there and cannot be read
            reason = in_a_line(fault)
        if reason:
            found[name] = reason
    return found


def _check_references(scores: Mapping[Task, Mapping[str, Score]], cases: Sequence[Case], rows: Sequence[Row]) -> None:
    """Raise ValueError if a metric of whole rows would be held against nothing."""
    truths, headings = any(case.truth is not None for case in cases), [row.heading for row in rows]
    for name, score in chain.from_iterable(named.items() for named in scores.values()):
        if isinstance(score, SetMetric):
            references(name, score.against, headings, truths)


def check_effort(prepared: Prepared, effort: Effort) -> None:
    """Raise ValueError if a comparison needs pictures and is not to keep any."""
    names = [name for named in prepared.sets.values() for name in named]
    if names and not effort.pictures:
        raise ValueError(f"{names[0]} looks at the pictures that a run keeps; leave out --no-pictures, or that metric")


def _rehearse(score: Score, case: Case) -> None:
    nothing = torch.zeros(1)
    if isinstance(score, Metric):
        score.many([case], [Result(case.picture, nothing, nothing)])
    elif isinstance(score, SetMetric):
        score.features(case.picture[None])


def _numerics(plan: Comparison, device: str, options: Mapping[str, Any]) -> str:
    """What the numbers depend on besides the weights: how the model computes, and its own options."""
    setup, loader = plan.setup, build_loader(model_kind(plan.model)[0], options)
    tiled = ["low memory"] * setup.low_memory  # the codec works in tiles then
    return "|".join([setup.dtype, device.partition(":")[0], str(setup.compiled), setup.quantise, repr(loader), *tiled])


def as_it_is(model: Model[Any], latents: Tensor) -> str:
    """What numbers depend on besides the weights, of a model that is there: its class, what it keeps, and its time grid."""
    kept = {name: value if isinstance(value, PLAIN) else type(value).__name__ for name, value in vars(model).items()}
    what = (type(model).__name__, latents.device.type, sorted(kept.items()), model.grid(7, latents.shape).times)
    return repr(what)


def distinct(metrics: Mapping[Task, Mapping[str, Score]]) -> list[Score]:
    """The metrics of all tasks, each once."""
    return list(dict.fromkeys(metric for by_name in metrics.values() for metric in by_name.values()))


def open_folder(prepared: Prepared, out: Path, overwrite: bool) -> AbstractContextManager[RunFolder]:
    """The folder for the run's results, with its run.json; nobody else can open it meanwhile.
    Raises ValueError if it is taken (see RunFolder.open)."""
    return RunFolder.open(out, prepared.manifest, overwrite)


def carry_out(prepared: Prepared, folder: RunFolder, watch: Watch, effort: Effort | None = None) -> Results:
    """Run what is not done yet, and read it all back; then hold whole rows against their references, once all cells are there.
    Raises ValueError with the first reason if every cell failed, and if pictures are needed that are not to be kept."""
    effort = effort or Effort()
    check_effort(prepared, effort)
    if effort.workers:
        plan = replace(prepared.plan, setup=replace(prepared.plan.setup, device=prepared.device))
        again = partial(_job_elsewhere, plan, prepared.shard, effort)
        run_on_workers(_job(prepared, effort), again, folder, watch, effort, environment("cpu") | asdict(effort))
    else:
        session = environment(prepared.device) | asdict(effort)
        on_gpu = prepared.device.startswith("cuda")
        run(prepared.model, prepared.mine, prepared.metrics, folder, watch, effort, session, beside=on_gpu)
    (results,) = read_results([folder.path])
    if len(results.failures) == len(results.records):
        raise ValueError(f"every cell failed; the first: {results.failures[0]}; --retry-failed runs them again")
    return _with_sets(prepared, results, folder) if len(results.records) == len(prepared.cells) else results


def _with_sets(prepared: Prepared, results: Results, folder: RunFolder) -> Results:
    """The same with what metrics of whole rows find, written down in the folder."""
    if not results.sets_to_come:
        return results
    built = dict(chain.from_iterable(named.items() for named in prepared.sets.values()))
    results = completed(results, {name: built[name] for name in results.sets_to_come})
    write_sets(folder.path, results.records, results.sets)
    return results


def _job(prepared: Prepared, effort: Effort) -> Job:
    bench = Bench(prepared.model, prepared.metrics, effort.pictures)
    return Job(bench, tuple(groups(prepared.mine, effort.batch)), prepared.device)


def _job_elsewhere(plan: Comparison, shard: Shard | None, effort: Effort) -> Job:
    """What a worker makes of the plain request."""
    return _job(replace(prepare(plan), shard=shard), effort)


def paths(prepared: Prepared, results: Results) -> Mapping[str, Sequence[Tensor]]:
    """The noise-free path of the first case under every edit that came out there, has such a path and is no control: decoded
    states, by the row's name."""
    case, seed = prepared.mine[0].case, prepared.plan.seeds[0]
    came_out = {record.row for record in results.records if (record.case, record.seed, record.error) == (case.id, seed, None)}
    walked = {}
    for row in prepared.rows:
        if row.task == "edit" and not row.control and row.name in came_out:
            outcome = execute(prepared.model, row.editor, row.solver, row.steps, [case], seed, keep_path=True)
            walked[row.name] = [prepared.model.decode(state)[0] for state in outcome.edit.path]
    return {name: states for name, states in walked.items() if states}
