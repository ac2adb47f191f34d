"""Metrics of whole rows: the pictures of a row as a set, held against a set of references, from what run folders hold.

A figure is of all pictures that are there; where a row has several seeds it is the mean over them. The interval is a bootstrap
over cases: all pictures of a case are drawn together, those of all seeds, and with them its references where these are of cases
too. Drawing with replacement repeats pictures, which by itself makes every distance here larger; so the draws are moved until
their mean is the figure. The interval tells how far the figure would move with other cases, as many of them. It does not cover
what the distance is too large by because pictures are few (see `metrics.frechet`), nor other seeds where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cases.pictures import SUFFIXES, read
from ..metrics.base import SetMetric
from .bench import in_a_line
from .results import Results
from .rows import Heading
from .statistics import CONFIDENCE, Estimate

DRAWS: Final = 200
CHUNK: Final = 16
"""Pictures that are in memory at once."""


class References(NamedTuple):
    """What sets are held against: what the cases show or should show (`name` is "source" or "truth"), the pictures of a row, or
    those of a folder."""

    kind: Literal["original", "row", "folder"]
    name: str


def references(metric: str, against: str, rows: Sequence[Heading], truths: bool) -> References:
    """What the option `against` of a metric stands for in a comparison of these rows. truths: whether cases have any.
    Raises ValueError if it stands for nothing."""
    if against == "auto" and not truths:
        against = next((row.name for row in rows if row.control and row.name.startswith("from-noise")), against)
    if against == "source" or (against in ("auto", "truth") and truths):
        return References("original", "source" if against == "source" else "truth")
    names = {row.name for row in rows}
    if (name := against.replace(" ", "-")) in names:
        return References("row", name)
    found_nothing = {"auto": "auto, which finds neither truths nor a row from noise", "truth": "truth, which no case has"}
    if against not in found_nothing and _pictures_in(Path(against)):
        return References("folder", against)
    raise ValueError(
        f"{metric}.against must be auto, truth, source, a row of this comparison ({', '.join(sorted(names))}) or a folder of "
        f"pictures, got {found_nothing.get(against, repr(against))}"
    )


def completed(results: Results, metrics: Mapping[str, SetMetric]) -> Results:
    """The same with the figures of these metrics for all their rows, or with the reason why one has none. Nothing is
    written."""
    found: dict[str, dict[str, Estimate]] = {row: dict(named) for row, named in results.sets.items()}
    reasons: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            reason = metric.missing()
            scores = {} if reason else _scored(name, metric, results)
        except Exception as fault:  # a picture that cannot be read, references that are gone, a plug-in that fails in any way
            reason, scores = in_a_line(fault), {}
        if reason:
            reasons[name] = reason
        for row, estimate in scores.items():
            found.setdefault(row, {})[name] = estimate
    return replace(results, sets=found, unset=reasons)


def _scored(name: str, metric: SetMetric, results: Results) -> dict[str, Estimate]:
    """The figure of every row that the metric is for. A row that is the reference itself has none."""
    manifest = results.manifest
    truths = any(results.original("truth", case) for case in manifest.cases)
    against = references(name, metric.against, manifest.rows, truths)
    theirs = _references(metric, against, results)
    rows = [row.name for row in manifest.rows if name in manifest.metrics.get(row.task, ())]
    found = {}
    for row in rows:
        held = sum(record.row == row for record in results.records)
        if against == References("row", row):
            found[row] = Estimate(math.nan, math.nan, math.nan, 0, held)
        else:
            ours = _by_seed(metric, row, results)
            found[row] = estimate(metric, ours, theirs, held - sum(len(one.cases) for one in ours))
    return found


@dataclass(frozen=True)
class Sample:
    """Features (N, D) of the pictures of a set, and the case that each picture is of. Pictures that are of no case have names
    of their own there, and are not `paired` with those of other sets."""

    features: Tensor
    cases: Sequence[str]
    paired: bool = True


def estimate(metric: SetMetric, ours: Sequence[Sample], theirs: Sample, missing: int = 0) -> Estimate:
    """How far a row is from its references, with its interval; the mean is NaN, and all pictures are missing, where there are
    too few. ours: the row's pictures, those of each seed apart: the figure is the mean over seeds, so that rows with and
    without noise stand at equal numbers of pictures. `count` is the number of all of them. missing: those that should be there
    beside."""
    count = sum(len(one.cases) for one in ours)
    mean = _mean(metric.distance(one.features, theirs.features) for one in ours if one.cases and theirs.cases)
    if math.isnan(mean):
        return Estimate(math.nan, math.nan, math.nan, 0, count + missing)
    drawn = np.array([value for value in _drawn(metric, ours, theirs) if not math.isnan(value)])
    several = len({case for one in ours for case in one.cases}) > 1
    if not (several and len(drawn)):
        return Estimate(mean, math.nan, math.nan, count, missing)
    low, high = np.quantile(drawn, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]) - drawn.mean() + mean
    return Estimate(mean, float(low), float(high), count, missing)


def _drawn(metric: SetMetric, ours: Sequence[Sample], theirs: Sample) -> Iterator[float]:
    """The figure of sets that are drawn with replacement, case by case. The same cases are drawn for all rows, so that rows
    differ by their pictures alone."""
    random = Random(0)
    mine, others = [_places(one.cases) for one in ours], _places(theirs.cases)
    names = sorted(set().union(*mine, others if theirs.paired else ()))
    for _ in range(DRAWS):
        cases = random.choices(names, k=len(names))
        beside = cases if theirs.paired else random.choices(list(others), k=len(others))
        references = theirs.features[_of_cases(others, beside)]
        drawn = (one.features[_of_cases(places, cases)] for one, places in zip(ours, mine, strict=True))
        yield _mean(metric.distance(features, references) for features in drawn)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def _places(cases: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        found.setdefault(case, []).append(place)
    return found


def _of_cases(places: Mapping[str, list[int]], cases: Sequence[str]) -> list[int]:
    return [place for case in cases for place in places.get(case, ())]


def _references(metric: SetMetric, against: References, results: Results) -> Sample:
    if against.kind == "row":
        samples = _by_seed(metric, against.name, results)
        return Sample(_joined([one.features for one in samples]), [case for one in samples for case in one.cases])
    if against.kind == "folder":
        files = _pictures_in(Path(against.name))
        return Sample(_features(metric, files), [file.name for file in files], paired=False)
    found = [(case, results.original(against.name, case)) for case in results.manifest.cases]
    return _sample(metric, found)


def _by_seed(metric: SetMetric, row: str, results: Results) -> list[Sample]:
    """The pictures of a row that are there, those of each seed apart."""
    found: dict[int, list[tuple[str, Path | None]]] = {}
    for record in results.records:
        if record.row == row and record.picture is not None:
            found.setdefault(record.seed, []).append((record.case, results.picture(record.picture)))
    return [_sample(metric, mine) for mine in found.values()]


def _sample(metric: SetMetric, found: Sequence[tuple[str, Path | None]]) -> Sample:
    """The set of those pictures that are there."""
    there = [(case, file) for case, file in found if file is not None]
    return Sample(_features(metric, [file for _, file in there]), [case for case, _ in there])


def _features(metric: SetMetric, files: Sequence[Path]) -> Tensor:
    """The features (N, D) of pictures, of which CHUNK are read at a time."""
    parts = []
    for first in range(0, len(files), CHUNK):
        pictures = [read(file).pixels for file in files[first : first + CHUNK]]
        for _, same in groupby(pictures, key=lambda picture: picture.shape):
            parts.append(metric.features(torch.stack(list(same))))
    return _joined(parts)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    full = [part for part in parts if len(part)]
    return torch.cat(full) if full else torch.empty(0, 0)


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
