"""The package in Python: load a model; edit, invert, reconstruct, generate, draw cases, compare. The command line calls it.

import fe

model = fe.load_model("scenes")
edited = fe.edit(model, "scenes:7", solver="fireflow", steps=8)
edited.save("edited.png")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console
from torch import Tensor

from .cases.base import Case
from .cases.images import AnyImage
from .editors.base import Editor
from .editors.controls import FromNoise
from .editors.inversion import Inversion
from .editors.one_way import OneWay
from .experiments.compare import carry_out, open_folder, prepare
from .experiments.drawing import Drawing, Prompts, draw, find_pairs, set_of
from .experiments.execute import encode
from .experiments.folder import check_writable
from .experiments.meter import alone
from .experiments.methods import choose
from .experiments.names import check_mask, wrap_pipeline
from .experiments.names import load_model as load_named
from .experiments.plan import planned, usual_model
from .experiments.probe import has_path
from .experiments.reproduce import Reproduced
from .experiments.reproduce import reproduce as run_again
from .experiments.round_trip import round_trip
from .experiments.run import Effort, Watch
from .experiments.subjects import ALONE, Fitted, Given, Subject, drawn_size, fit, subject
from .experiments.words import DTYPES, Asked, CaseChoice, Method, known
from .experiments.workers import check_workers
from .models.base import Model, Setup
from .options import by_name, typed
from .registry import EDITORS, METRICS, SOLVERS
from .reports.at_work import executed, watching
from .reports.page import Compared, compared
from .reports.progress import counted, visible, watched
from .reports.results import Edited, Generated, Inverted, Reconstructed, parts, pictures_of
from .reports.table import UNTRAINED
from .solvers.base import Solver

Options: TypeAlias = Mapping[str, Any]
"""Options by name, as text or as values: {"flowedit.n_max": 20} or {"flowedit": {"n_max": 20}}; of the model under "model"."""

Words: TypeAlias = str | Sequence[str]
"""Names, one text with commas or several."""


@typed
def load_model(
    model: Any,
    *,
    kind: str | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "float32",
    weights: str = "trained",
    compiled: bool = False,
    low_memory: bool = False,
    quantise: str = "none",
    features: str = "auto",
    options: Options | None = None,
) -> Model[Any]:
    """A model, to be used any number of times.

    model: a name ("scenes", "flux-dev"; `fe list models` shows them), a folder or hub id, KIND:FOLDER, or a diffusers pipeline
    object, which stays where and as it is. kind: what to take a folder or a pipeline for, where it does not say so itself:
    "instaflow", "2rf" or "sd15" for a StableDiffusionPipeline. device: "auto" takes a GPU where there is one. dtype: what the
    networks compute in: "float32", "bfloat16", "float16", or torch's name for it. weights: "random" for the full-size network
    without any download. compiled: compile its blocks. low_memory: only the part that works is on the GPU. quantise: "int8" or
    "nf4". features: where injection keeps what it records, "device" or "host". options: the model's own, such as
    {"exact_time": False}.
    Raises LookupError for an unknown name, ValueError (one sentence) if the model cannot be had.
    """
    precision = str(dtype).removeprefix("torch.")
    setup = Setup(device, DTYPES.get(precision, precision), weights, compiled, low_memory, quantise, features)
    if isinstance(model, str | Path):
        return load_named(str(model) if kind is None else f"{kind}:{model}", setup, options)
    for name, value in vars(setup).items():
        if value != getattr(Setup(device="auto"), name):
            raise ValueError(f"{name}={value!r} cannot be had of a pipeline object, which stays as it is; leave it out")
    return wrap_pipeline(model, kind, options)


@typed
def edit(
    model: Any,
    image: Given,
    *,
    source: str | None = None,
    target: str | None = None,
    editor: str | Editor | None = None,
    solver: str | Solver[Any] | None = None,
    steps: int | None = None,
    preset: str | None = None,
    seed: int = 0,
    options: Options | None = None,
    mask: AnyImage | None = None,
    side: int | None = None,
    keep_path: bool = False,
    progress: bool = True,
) -> Edited:
    """Edit one picture: FlowEdit by 28 Euler steps, unless a preset or the arguments say otherwise.

    model: from `load_model`, or what it takes. image: a file, a Pillow image, an array (H, W, 3) or a tensor (3, H, W) of
    uint8 or of floats in [0, 1], or a case such as "scenes:7", which brings its prompts. source: what it shows. target: what
    it should show. editor, solver: names or objects. preset: a method as published (`fe list presets`); what is given beside
    it goes before it. seed: of the noise, on which nothing else depends: not the file's name, not the device. options: see
    `Options`. mask: a picture, or an array of truth values, white or True where the picture may change, for editors that take
    one. side: pixels that the shorter side is resized to. keep_path: keep pictures of the way from the source to the result.
    progress: show it in a terminal or notebook.
    Raises LookupError for unknown names, ValueError (one sentence) for what does not fit; FloatingPointError if the result
    is not finite.
    """
    way = choose(editor, solver, steps, preset, options)
    if mask is not None:
        check_mask(way.editor)
    asked = subject(image).prompted(source, target)
    loaded = _loaded(model, way.of_model)
    fitted = fit(asked, loaded, side=side, mask=mask)
    with alone(loaded.network):
        if keep_path and not has_path(way.editor, way.solver, way.steps, loaded, (fitted.case.source, fitted.case.target)):
            editing = type(way.editor).__name__
            raise ValueError(f"{editing} has no path from the source to the result, as it is set; ask for none")
        outcome = executed("editing", way, loaded, fitted, seed, progress, keep_path=keep_path)
        path = pictures_of(outcome.edit.path, loaded)
    return Edited(way.name, notes_of(loaded, fitted.notes), *parts(outcome), path=path)


@typed
def invert(
    model: Any,
    image: Given,
    *,
    prompt: str | None = None,
    solver: str | Solver[Any] = "euler",
    steps: int = 28,
    guidance: float = 1.0,
    options: Options | None = None,
    side: int | None = None,
    progress: bool = True,
) -> Inverted:
    """Walk one picture to the noise that it would be generated from: the latent of what is given back.

    prompt: what the picture shows (a case brings its own; otherwise nothing). guidance: other values than 1 are known to break
    the inversion. All else, and what is raised: as in `edit`."""
    way = choose(OneWay(up=True, guidance=guidance), solver, steps, None, options)
    loaded = _loaded(model, way.of_model)
    fitted = fit(_showing(subject(image), prompt), loaded, side=side)
    with alone(loaded.network):
        outcome = executed("inverting", way, loaded, fitted, 0, progress)
    return Inverted(f"{way.walker}-{steps} to noise", notes_of(loaded, fitted.notes), *parts(outcome))


@typed
def reconstruct(
    model: Any,
    image: Given,
    *,
    prompt: str | None = None,
    solver: str | Solver[Any] = "euler",
    steps: int = 28,
    carry: bool = False,
    options: Options | None = None,
    side: int | None = None,
    progress: bool = True,
) -> Reconstructed:
    """Invert one picture and generate it again, both with the same prompt at guidance 1, and measure what is lost.

    prompt: what the picture shows (a case brings its own; otherwise nothing). carry: hand the state of an exactly reversible
    solver from one way to the other. All else, and what is raised: as in `edit`."""
    way = choose(Inversion.reconstruction(carry), solver, steps, None, options)
    loaded = _loaded(model, way.of_model)
    fitted = fit(_showing(subject(image), prompt), loaded, side=side)
    with alone(loaded.network), watching("walking there and back", way, loaded, fitted.case, progress) as watch:
        trip = round_trip(loaded, way.solver, steps, fitted.case, carry, watch)
    name = f"{way.walker}-{steps} and back" + (", state carried" if carry else "")
    return Reconstructed(name, notes_of(loaded, fitted.notes), *parts(trip.outcome), rmse=trip.rmse, psnr=trip.psnr)


@typed
def generate(
    model: Any,
    prompt: str,
    *,
    solver: str | Solver[Any] = "euler",
    steps: int = 28,
    guidance: float = 3.5,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    noise: Tensor | None = None,
    options: Options | None = None,
    progress: bool = True,
) -> Generated:
    """Draw one picture from a prompt. guidance: how strongly the prompt is followed. size: (height, width) in pixels; the
    model's own if not given. noise: what to start from in place of the seed's, (C, h, w), such as the latent that `invert`
    gives. All else, and what is raised: as in `edit`."""
    if noise is not None and not (isinstance(noise, Tensor) and noise.ndim == 3):
        given = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(f"noise must be a tensor (C, h, w), such as the latent of what invert gives, got {given}")
    if noise is not None and (size is not None or seed):
        raise ValueError("noise has a size and needs no seed; leave out size and seed")
    editor = FromNoise(guidance) if noise is None else OneWay(up=False, guidance=guidance)
    way = choose(editor, solver, steps, None, options)
    loaded = _loaded(model, way.of_model)
    small = 8 * loaded.multiple  # of a picture that only says where latents are
    height, width = drawn_size(size, loaded) if noise is None else (loaded.side or small, loaded.side or small)
    case = Case(ALONE, torch.zeros(3, height, width), prompt, prompt)
    with alone(loaded.network):
        source = encode(loaded, [case])
        start = source if noise is None else noise[None].to(source)
        outcome = executed("drawing", way, loaded, Fitted(case, None, ()), seed, progress, source=start)
    return Generated(f"{way.walker}-{steps}", notes_of(loaded, ()), *parts(outcome))


@typed
def draw_cases(
    model: Any,
    prompts: Prompts,
    out: str | Path,
    *,
    solver: str | Solver[Any] = "euler",
    steps: int = 28,
    guidance: float = 3.5,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    count: int | None = None,
    batch: int = 8,
    options: Options | None = None,
    progress: bool = True,
) -> Path:
    """Draw the source of every pair of prompts into the folder `out`: a data set, "folder:OUT", whose noise is known. In a
    comparison with the same model, solver, steps, seed and guidance the row from-noise generates every target from the noise of
    its source. A drawing that was cut short goes on when it is asked for again.

    prompts: pairs (source, target); a CSV or JSON-lines file with these columns; "cat-dog:100", or a case set such as
    "scenes:100". count: the first so many. batch: pictures that go through the model at once. options: also of the case set.
    All else, and what is raised: as in `generate`; ValueError also for a folder that holds something else. Returns `out`."""
    chosen, place = set_of(prompts), Path(out)
    given = by_name(options or {}, [name for name in (solver, chosen, "model") if isinstance(name, str)])
    pairs = find_pairs(prompts, count, given[chosen] if chosen else None)
    way = choose(FromNoise(guidance), solver, steps, None, {solver: given[solver]} if isinstance(solver, str) else None)
    check_writable(place)
    loaded, console = _loaded(model, given["model"]), Console(stderr=True)
    drawing = Drawing(way.solver, steps, guidance, seed, drawn_size(size, loaded), batch)
    seen = progress and visible(console)
    with alone(loaded.network), counted(console, "drawing", len(pairs), "pictures") if seen else nullcontext() as watch:
        draw(loaded, pairs, place, drawing, watch)
    return place


@typed
def compare(
    model: Any = None,
    *,
    methods: Words = (),
    solvers: Words = (),
    editors: Words = (),
    steps: int | Sequence[int] = (),
    match_nfe: int | None = None,
    cases: str | None = None,
    seeds: int | Sequence[int] = 0,
    metrics: Words = (),
    protocol: str = "",
    options: Options | None = None,
    batch: int = 8,
    out: str | Path | None = None,
    pictures: bool = True,
    overwrite: bool = False,
    retry_failed: bool = False,
    workers: int = 0,
    ray_address: str = "",
    progress: bool = True,
) -> Compared:
    """Run solvers and editors over cases; what is left out suits the model, as in `fe compare`.

    model: from `load_model`, or what it takes; the scenes model, or the protocol's, if none is given. methods: "EDITOR+SOLVER"
    or presets, either with "/STEPS", in place of all `editors` with all `solvers`; a sequence, or one text with commas. steps:
    counts for every method; without them a preset runs with its own. match_nfe: as many steps as that many evaluations (network
    rows) for a picture allow. cases: "NAME", "NAME:COUNT", "NAME:PATH" or "NAME:PATH:COUNT". metrics: names; what is usual for
    the cases, if none are given. protocol: a published recipe, which says what else is left out. options: see `Options`, also
    of the case set and of metrics. batch: cases that go through the model at once. out: folder of the results; one under
    results/ if none is given. A run that was cut short goes on when it is asked for again; a finished one is read again.
    retry_failed: cells that failed before are run again. workers: so many processes of Ray work at once, each with a model and,
    if there are any, a GPU of its own; the model must then be named. ray_address: "HOST:PORT" of a Ray that runs, or "auto";
    one is started if none is given.
    Raises LookupError for unknown names, ValueError (one sentence) for what does not fit.
    """
    asked = Asked(
        methods=tuple(dict.fromkeys(map(Method.read, _words(methods)))),
        solvers=tuple(known(SOLVERS, name) for name in _words(solvers)),
        editors=tuple(known(EDITORS, name) for name in _words(editors)),
        steps=_numbers(steps),
        match_nfe=match_nfe,
        cases=None if cases is None else CaseChoice.read(cases),
        seeds=_numbers(seeds),
        metrics=tuple(known(METRICS, name) for name in _words(metrics)),
        protocol=protocol,
    )
    model = usual_model(protocol) if model is None else model
    named, given = isinstance(model, str | Path), options or {}
    effort = Effort(batch, pictures, retry_failed, workers, ray_address)
    if workers and not named:
        raise ValueError("a model that is loaded cannot be sent to workers; give its name, or leave out workers")
    check_workers(effort, Setup(device="auto"))
    own = by_name({key: value for key, value in given.items() if str(key).partition(".")[0] == "model"}, ["model"])["model"]
    loaded = None if named else _loaded(model, own)
    plan, faults = planned(asked, str(model) if named else type(loaded).__name__, Setup(device="auto"), given)
    check_writable(Path(out or "results"))
    with nullcontext() if loaded is None else alone(loaded.network):
        prepared = prepare(plan, loaded, elsewhere=workers > 0)
        with (
            open_folder(prepared, Path(out or Path("results") / prepared.name), overwrite) as folder,
            _watch(progress) as watch,
        ):
            results = carry_out(prepared, folder, watch, effort)
        return compared(prepared, results, faults)


@typed
def reproduce(run: str | Path, cell: str | None = None, *, device: str | None = None) -> Reproduced:
    """Run one cell of a comparison again, in the batch that it was part of: is it `identical`?

    run: the folder of its results. cell: its key, or ROW/CASE, or as much of either as no other cell has; the first one that
    came out if none is given. device: where, if not where the run was. Nothing is written.
    Raises LookupError or ValueError (one sentence) if there is no such run or cell, or if what it needs cannot be had.
    """
    return run_again(Path(run), cell, device)


def _loaded(model: Any, options: Options) -> Model[Any]:
    """The model itself, or what `load_model` makes of it. Raises ValueError if options are said of one that is there
    already."""
    if not isinstance(model, Model):
        return load_model(model, options=options)
    if options:
        raise ValueError(f"the model is loaded already; give load_model its options ({', '.join(options)})")
    return model


def _showing(given: Subject, prompt: str | None) -> Subject:
    """The subject with one prompt for both ways: what was said, what it brings, or nothing."""
    shown = (given.source or "") if prompt is None else prompt
    return replace(given, source=shown, target=shown)


def notes_of(model: Model[Any], notes: tuple[str, ...]) -> tuple[str, ...]:
    """What was done to the input, and that the weights are random where they are."""
    return notes if model.trained else (*notes, UNTRAINED)


def _words(given: Words) -> Sequence[str]:
    return [word.strip() for word in given.split(",")] if isinstance(given, str) else given


def _numbers(given: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(map(int, given))) if isinstance(given, Sequence) else (int(given),)


def _watch(progress: bool) -> AbstractContextManager[Watch]:
    """What is to be told how far a comparison has come; nobody, unless somebody sees it."""
    console = Console(stderr=True)
    return watched(console) if progress and visible(console) else nullcontext(_silent)


def _silent(done: int, total: int, failed: int) -> None:
    """Nobody watches."""
