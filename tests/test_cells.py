"""Cells, groups and shards: what runs, what runs together, and who runs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fe.cases.base import Case
from fe.editors.base import Edit
from fe.experiments.cells import Cell, groups, make_cells, part
from fe.experiments.compare import prepare
from fe.experiments.defaults import default_settings, defaults_for
from fe.experiments.plan import Comparison
from fe.experiments.words import Method, Shard
from fe.registry import EDITORS

PLAN = Comparison(
    methods=(Method("inversion", "euler"), Method("flowedit", "euler")),
    model="mixture",
    cases="mixture",
    count=7,
    steps=(4,),
    seeds=(0, 1),
    settings={"mixture": {"points": "8"}},
)
ROW = prepare(PLAN).rows[0]


def case(name: str, side: int = 2) -> Case:
    return Case(name, torch.zeros(side, 2), "source", "target")


def keys(cells: list[Cell]) -> list[str]:
    return [cell.key for cell in cells]


@pytest.mark.parametrize("name", ["album/a", "album_a"])
def test_cases_whose_pictures_would_be_one_file_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"the cases 'album/a' and '.*' would have their pictures in one file"):
        make_cells([ROW], [case("album/a"), case("other"), case(name)], "m", "n")


@pytest.mark.parametrize("size", [1, 3, 8])
def test_groups_hold_every_cell_once_and_mix_no_rows_seeds_or_shapes(size: int) -> None:
    cells = [*prepare(PLAN).cells, *make_cells([ROW], [case("wide", 3), case("narrow", 5)], "m", "n")]
    found = list(groups(cells, size))
    assert sorted(cell.key for group in found for cell in group.cells) == sorted(keys(cells))
    for group in found:
        assert len({(cell.row.name, cell.seed) for cell in group.cells}) == 1
        assert len({one.picture.shape for one in group.cases}) == 1
        assert len(group.cells) <= len(group.cases) <= size
        assert {cell.case.id for cell in group.cells} <= {one.id for one in group.cases}


def test_groups_come_batch_by_batch_with_every_row() -> None:
    """A run that is cut short holds every row for the cases it came to."""
    found = list(groups(prepare(PLAN).cells, 3))
    rows = {(cell.row.name, cell.seed) for cell in prepare(PLAN).cells}
    batches = [tuple(one.id for one in group.cases) for group in found]
    assert batches == sorted(batches)
    assert {batch: batches.count(batch) for batch in batches} == dict.fromkeys(batches, len(rows))


@pytest.mark.parametrize("of", [1, 2, 7])
def test_shards_share_out_whole_cases_evenly(of: int) -> None:
    cells = prepare(PLAN).cells
    shards = [part(cells, Shard(number, of)) for number in range(1, of + 1)]
    assert sorted(key for shard in shards for key in keys(shard)) == sorted(keys(list(cells)))
    cases = [{cell.case.id for cell in shard} for shard in shards]
    assert sum(map(len, cases)) == 7
    assert max(map(len, cases)) - min(map(len, cases)) <= 1


def test_more_shards_than_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="7 cases cannot be shared out among 8 shards"):
        part(prepare(PLAN).cells, Shard(1, 8))


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "a/b", "1/0", "-1/4", "1/4/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard; write I/N"):
        Shard.read(text)


def test_an_editor_that_is_no_dataclass_has_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in's plain class is an editor too: what the model sets every guidance to passes it by."""

    class Plain:
        takes_mask = False

        def edit(self, model: Any, request: Any, *rest: Any, keep_path: bool = False) -> Edit:
            return Edit(request.latent)

    monkeypatch.setattr(type(EDITORS), "__getitem__", lambda table, name: Plain)
    assert default_settings(defaults_for("mixture"), ["plain"]) == {"plain": {}}


def test_a_control_that_is_asked_for_as_a_method_is_there_once() -> None:
    plan = replace(PLAN, methods=(Method("no-edit", "euler"), Method("inversion", "euler")))
    assert [row.name for row in prepare(plan).rows] == ["no-edit+euler-4", "inversion+euler-4", "from-noise"]
