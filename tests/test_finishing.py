"""What is done beside the next edit: in order, whole, and heard of when it fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fe.experiments.bench import Bench
from fe.experiments.compare import Prepared, prepare
from fe.experiments.finishing import finishing
from fe.experiments.folder import RunFolder
from fe.experiments.plan import Comparison
from fe.experiments.records import Record, read_records
from fe.experiments.run import Effort, run
from fe.experiments.words import Method

UNMEASURED: dict[str, Any] = {"seconds": 0.0, "network_seconds": 0.0, "peak_bytes": None}
LONG = 10.0  # seconds, of which a test that passes waits none
PLAN = Comparison(
    methods=(Method("flowedit", "euler"),),
    model="mixture",
    cases="mixture",
    count=6,
    steps=(5,),
    settings={"mixture": {"points": "20"}},
)


def test_items_are_finished_in_order_and_all_of_them() -> None:
    done: list[int] = []
    with finishing(done.append, beside=True) as give:
        for item in range(9):
            give(item)
    assert done == list(range(9))


def test_beside_the_giver_goes_on_before_an_item_is_finished() -> None:
    going_on, waited = Event(), []
    with finishing(lambda item: waited.append(going_on.wait(LONG)), beside=True) as give:
        give(1)
        going_on.set()
    assert waited == [True]


def test_only_so_many_items_wait() -> None:
    """Two are taken; the third is, once the first is finished."""
    release, taken, done = Event(), [], []

    def finish(item: int) -> None:
        assert release.wait(LONG)
        done.append(item)

    with finishing(finish, beside=True) as give:
        for item in (1, 2):
            give(item)
            taken.append((item, len(done)))
        threading.Timer(0.05, release.set).start()
        give(3)
        taken.append((3, min(len(done), 1)))
    assert taken == [(1, 0), (2, 0), (3, 1)]
    assert done == [1, 2, 3]


def test_after_an_error_nothing_is_finished_and_the_caller_hears_of_it() -> None:
    """Not even what was waiting: it might be written behind half a line."""
    waiting, done = Event(), []

    def finish(item: int) -> None:
        if item == 2:
            assert waiting.wait(LONG)
            raise OSError(28, "No space left on device")
        done.append(item)

    def give_all() -> None:
        with finishing(finish, beside=True) as give:
            for item in range(99):
                given.append(item)
                give(item)
                if item == 3:
                    waiting.set()

    given: list[int] = []
    with pytest.raises(OSError, match="No space left"):
        give_all()
    assert done == [0, 1]
    assert len(given) <= 6  # what failed is heard of within AHEAD items


def test_an_error_in_the_last_item_is_heard_of_too() -> None:
    def finish(item: int) -> None:
        raise OSError(30, "Read-only file system")

    with pytest.raises(OSError, match="Read-only"), finishing(finish, beside=True) as give:
        give(1)


def test_an_interrupt_lets_the_item_in_work_end_and_drops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    started, dropped, done = Event(), Event(), []
    shutdown = ThreadPoolExecutor.shutdown

    def watched(self: Any, wait: bool = True, *, cancel_futures: bool = False) -> None:
        shutdown(self, wait=False, cancel_futures=cancel_futures)
        dropped.set()
        shutdown(self, wait=wait)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", watched)

    def finish(item: int) -> None:
        started.set()
        assert dropped.wait(LONG)
        done.append(item)

    def interrupted() -> None:
        with finishing(finish, beside=True) as give:
            give(1)
            give(2)
            assert started.wait(LONG)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [1]


def silent(done: int, total: int, failed: int) -> None:
    """Nobody watches."""


def carried(prepared: Prepared, out: Path, beside: bool) -> list[Record]:
    with RunFolder.open(out, prepared.manifest) as folder:
        run(prepared.model, prepared.cells, prepared.metrics, folder, silent, Effort(batch=2), {}, beside)
    found: list[Record] = read_records(out / "records.jsonl")
    return found


def plain(records: Sequence[Record]) -> list[Record]:
    """Without what is measured, and by which session."""
    return [replace(one, session=0, cost=one.cost and replace(one.cost, **UNMEASURED)) for one in records]


def test_records_are_the_same_beside_and_in_line(tmp_path: Path) -> None:
    found = [plain(carried(prepare(PLAN), tmp_path / str(beside), beside)) for beside in (False, True)]
    assert found[0] == found[1]
    assert len(found[0]) == 18


@pytest.mark.parametrize("beside", [True, False])
def test_the_next_edit_begins_before_the_former_is_written_if_asked(
    beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, keep, next_edit = Bench.edit, RunFolder.keep, Event()
    edits, written_after, threads = [], [], set()

    def edited(self: Any, group: Any) -> Any:
        edits.append(group)
        if len(edits) == 2:
            next_edit.set()
        return edit(self, group)

    def kept(self: Any, finished: Any) -> None:
        if beside:
            assert next_edit.wait(LONG)
        written_after.append(len(edits))
        threads.add(threading.current_thread() is threading.main_thread())
        keep(self, finished)

    monkeypatch.setattr(Bench, "edit", edited)
    monkeypatch.setattr(RunFolder, "keep", kept)
    carried(prepare(PLAN), tmp_path / "out", beside)
    assert written_after[0] >= 2 if beside else written_after == list(range(1, 10))
    assert threads == {not beside}


def test_a_full_disk_comes_out_of_the_run_and_what_was_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep, calls = RunFolder.keep, []

    def full(self: Any, finished: Any) -> None:
        calls.append(finished)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        keep(self, finished)

    prepared = prepare(PLAN)
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "keep", full)
        with pytest.raises(OSError, match="No space left"):
            carried(prepared, tmp_path / "out", beside=True)
    assert len(read_records(tmp_path / "out" / "records.jsonl")) == 4
    whole = carried(prepared, tmp_path / "whole", beside=False)
    assert plain(carried(prepared, tmp_path / "out", beside=True)) == plain(whole)
