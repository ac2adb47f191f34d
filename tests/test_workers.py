"""Workers of Ray: the same results as without, whoever dies on the way."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from fe import api
from fe.cli.main import main
from fe.experiments.bench import Bench
from fe.experiments.cells import Group, groups
from fe.experiments.compare import open_folder, prepare
from fe.experiments.plan import Comparison
from fe.experiments.records import Finished, Record, read_records
from fe.experiments.run import Effort
from fe.experiments.words import Method
from fe.experiments.workers import ATTEMPTS, Job, _Crew, _Hand, from_bytes, run_on_workers, to_bytes
from fe.models.base import Model

PLAN = Comparison(
    methods=(Method("inversion", "euler"), Method("flowedit", "euler")),
    model="mixture",
    cases="mixture",
    count=4,
    steps=(6,),
    settings={"mixture": {"points": "40"}},
)
EFFORT = Effort(batch=2, workers=2)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
ALONE = replace(EFFORT, workers=1)
MIXTURE = ("--model", "mixture", "--device", "cpu")


def silent(done: int, total: int, failed: int) -> None:
    """Nobody watches."""


def job_of(plan: Comparison, batch: int = 2) -> Job:
    prepared = prepare(plan)
    cells = groups(prepared.mine, batch)
    return Job(Bench(prepared.model, prepared.metrics), tuple(cells), "cpu")


class Poisoned(Bench):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """Ends its whole process over the cells of one row, as the system does where memory runs out."""

    def edit(self, group: Group) -> Any:
        if group.cells[0].row.name == "flowedit+euler-6":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().edit(group)


def poisoned_job() -> Job:
    job = job_of(PLAN)
    return replace(job, bench=Poisoned(job.bench.model, job.bench.metrics))


def absent_job() -> Job:
    raise LookupError("no weights on this machine")


def test_a_job_goes_by_its_cells_and_what_they_are_scored_with() -> None:
    job = job_of(PLAN)
    assert job_of(PLAN).identity == job.identity
    assert replace(job, groups=job.groups[::-1]).identity != job.identity
    assert replace(job, bench=Bench(job.bench.model, {"edit": {}})).identity != job.identity


def test_two_workers_give_what_one_process_gives(tmp_path: Path, tiny_scenes: str, capfd: pytest.CaptureFixture[str]) -> None:
    """To the last bit, pictures included; Ray says nothing and leaves nothing behind (before the tests that share one)."""
    words = f"compare --model {tiny_scenes} --cases scenes:2 --solver euler --steps 2 --batch 1 --device cpu".split()
    assert CliRunner().invoke(main, [*words, "--out", str(tmp_path / "alone")]).exit_code == 0
    done = CliRunner().invoke(main, [*words, "--workers", "2", "--out", str(tmp_path / "two")])
    assert done.exit_code == 0, done.output
    assert all(" cells" in line for line in done.stderr.splitlines())
    assert capfd.readouterr() == ("", "")  # what does not come from us
    assert plain(tmp_path / "two") == plain(tmp_path / "alone")
    assert pictures(tmp_path / "two") == pictures(tmp_path / "alone") != {}
    (session,) = json.loads((tmp_path / "two" / "run.json").read_text())["sessions"]
    assert session["workers"] == 2
    spent = session["seconds"]  # summed over the workers, who did what is in the records
    inside = spent["network"] + spent["text"] + spent["codec"]
    lines = [json.loads(line) for line in (tmp_path / "two" / "records.jsonl").read_text().splitlines()]
    assert spent["network"] == pytest.approx(sum(line["cost"]["network_seconds"] for line in lines))
    assert min(spent["text"], spent["codec"]) > 0
    assert spent["overhead"] == pytest.approx(2 * spent["whole"] / inside - 1)
    assert not [called for process, (_, called) in below(os.getpid()).items() if "ray" in called]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A Ray that the tests share, to which workers bring this file's code with them."""
    ray = pytest.importorskip("ray")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield ray
    ray.shutdown()


def run_elsewhere(elsewhere: Callable[[], Job], out: Path, effort: Effort = EFFORT) -> list[Record]:
    with open_folder(prepare(PLAN), out, overwrite=False) as folder:
        run_on_workers(job_of(PLAN), elsewhere, folder, silent, effort, {})
        return list(folder.records())


def test_what_kills_a_worker_twice_is_recorded_and_the_run_goes_on(ray: Any, tmp_path: Path) -> None:
    records = run_elsewhere(poisoned_job, tmp_path)
    assert len(records) == len({record.key for record in records}) == len(prepare(PLAN).cells)
    errors = {record.row: record.error or "" for record in records}
    assert [row for row, error in errors.items() if error] == ["flowedit+euler-6"]
    assert errors["flowedit+euler-6"].startswith("the worker died twice, the last time so: Worker ")
    assert not re.search("pid|actor_id|dmesg", errors["flowedit+euler-6"])  # nothing that is another each time
    retried = run_elsewhere(partial(job_of, PLAN), tmp_path, replace(ALONE, retry=True))
    assert len(retried) == len(records)
    assert not any(record.error for record in retried)


def test_a_worker_that_died_is_replaced_though_others_could_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    hand = _Hand("actor", None, up=True, tasks=deque([(None, 3)]))
    crew = _Crew(job_of(PLAN), lambda: _Hand("another", None), 2, deque([4]), hands=[hand], stillborn=ATTEMPTS)
    assert list(crew._lost(hand, ray.exceptions.RayActorError())) == []
    crew._fill()
    assert [one.actor for one in crew.hands] == ["another", "another"]
    assert list(crew.todo) == [4, 3]


@pytest.mark.parametrize(
    ("elsewhere", "said"),
    [
        (partial(job_of, replace(PLAN, steps=(7,))), "a worker would compute other cells than these"),
        (absent_job, "no worker could begin; the last: LookupError: no weights on this machine"),
    ],
    ids=["other cells", "no weights"],
)
def test_workers_that_cannot_take_part_end_the_run(ray: Any, elsewhere: Callable[[], Job], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        run_elsewhere(elsewhere, tmp_path, ALONE)
    assert not (tmp_path / "records.jsonl").exists()


def test_more_workers_than_there_is_room_for_are_refused(ray: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every worker needs a CPU and Ray has 2 for 3; use --workers 2"):
        run_elsewhere(absent_job, tmp_path, replace(EFFORT, workers=3))


def test_a_picture_on_its_way_is_rounded_as_its_file_is() -> None:
    picture = torch.rand(3, 40, 50) * 1.2 - 0.1
    (cell, *_) = prepare(PLAN).cells
    record = Record(cell.key, "r", "edit", "c", "", "", "", "e", "s", 1, 0)
    returned = from_bytes(Finished(record, to_bytes(picture))).picture
    assert returned is not None
    assert torch.equal(to_bytes(returned), to_bytes(picture))
    assert returned.dtype == torch.float32
    assert (returned - picture.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def plain(folder: Path, once: bool = True) -> dict[str, dict[str, Any]]:
    """The last records of a run by key, without seconds, memory and the session. once: hold it to one record a key."""
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    kept = {}
    for line in lines:
        cost = line.pop("cost") or {}
        line.pop("session")
        kept[line["key"]] = {**line, "cost": {name: cost.get(name) for name in ("batch", "calls", "rows")}}
    assert len(kept) == len(lines) or not once
    return kept


def pictures(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.parent.parent.name == "pictures"
    }


def fe(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "fe.cli.main", "compare", *map(str, words)]


def begun(folder: Path) -> bool:
    """Whether a first record has been written."""
    return (folder / "records.jsonl").exists() and (folder / "records.jsonl").stat().st_size > 0


def wait_until(met: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.1)


def processes() -> dict[int, tuple[int, str]]:
    """Every process with its parent and what it is called."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                found[int(entry.name)] = int(parent), (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it has ended meanwhile
    return found


def below(ancestor: int) -> dict[int, tuple[int, str]]:
    """Those under a process."""
    known, found = processes(), {}
    for process, (parent, called) in known.items():
        while parent in known and parent != ancestor:
            parent = known[parent][0]
        if parent == ancestor:
            found[process] = parent, called
    return found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ray-address", "auto"], "is for workers; say how many"),
        (["--workers", "2", "--ray-address", "somewhere"], "is no address of Ray; write HOST:PORT"),
        (["--workers", "2", "--ray-address", "127.0.0.1:9"], "nothing answers at 127.0.0.1:9"),
        (["--workers", "2", "--device", "cuda:1"], "use --device cuda"),
        (["--workers", "2", "--device", "cuda", "--weights", "random"], "cannot be held to them from here"),
    ],
)
def test_bad_wishes_are_refused_before_the_model_is_loaded(
    words: Sequence[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fe.experiments.compare.prepare", lambda *_, **__: pytest.fail("the model is loaded"))
    result = CliRunner().invoke(main, ["compare", "--model", "mixture", *words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fe.experiments.workers.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["compare", *MIXTURE, "--workers", "2"])
    assert result.exit_code == 2
    assert result.stderr == "fe: workers need Ray, which is not installed; run: pip install 'fe-toolkit[ray]'\n"


def test_a_model_at_hand_is_not_sent_to_workers() -> None:
    model: Model[Any] = api.load_model("mixture")
    with pytest.raises(ValueError, match="cannot be sent to workers; give its name"):
        api.compare(model, workers=2)


def test_without_workers_no_ray_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # now it cannot be imported
    words = ("--cases", "mixture:1", "--steps", "2", "--out", str(tmp_path / "out"))
    assert CliRunner().invoke(main, ["compare", *MIXTURE, *words]).exit_code == 0


# What follows takes minutes: runs of about half a minute on two workers, in which processes are killed.


def undisturbed(words: Sequence[str], out: Path) -> dict[str, dict[str, Any]]:
    subprocess.run(fe(*words, "--out", out), check=True, capture_output=True, env=ONE_THREAD)
    return plain(out)


def assert_no_scraps(folder: Path) -> None:
    """No picture that no record names, sources and truths apart, and no file under a passing name."""
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    named = {line["picture"] for line in lines}
    there = {name for name in pictures(folder) if name.split("/")[1] not in ("source", "truth")}
    assert there <= named
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_and_the_batch_change_nothing_but_rounding(
    workers: int, tmp_path: Path, tiny_scenes: str
) -> None:
    """To the last bit for one size of batch. For two sizes scores are equal to 1e-4 of them, as documented."""
    for words in (
        f"--model {tiny_scenes} --cases scenes:4 --steps 2".split(),
        [*MIXTURE, *["--cases", "mixture:9", "--steps", "20"]],
    ):
        found = {}
        for batch in (1, 8):
            given, out = [*words, "--device", "cpu", "--batch", str(batch)], tmp_path / f"{words[1].partition(':')[0]}-{batch}"
            alone = undisturbed(given, out.with_suffix(".alone"))
            found[batch] = undisturbed([*given, "--workers", str(workers)], out)
            assert found[batch] == alone
            assert pictures(out) == pictures(out.with_suffix(".alone"))
        assert found[1].keys() == found[8].keys()
        for key, record in found[1].items():
            assert found[8][key]["scores"] == pytest.approx(record["scores"], rel=1e-4, abs=1e-5, nan_ok=True)


@pytest.mark.slow
def test_workers_killed_at_random_moments_cost_nothing(tmp_path: Path, tiny_scenes: str) -> None:
    long = f"--model {tiny_scenes} --cases scenes:40 --steps 40 --batch 1 --device cpu".split()
    expected, out, chance = undisturbed(long, tmp_path / "whole"), tmp_path / "out", random.Random(5)
    words: tuple[str | Path, ...] = (*long, "--workers", "2", "--out", out)
    killed = 0
    with subprocess.Popen(fe(*words), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=ONE_THREAD) as run:
        while run.poll() is None:
            alive = [process for process, (_, called) in below(run.pid).items() if called.startswith("ray::Worker")]
            if alive and killed < 5 and begun(out):
                os.kill(chance.choice(alive), signal.SIGKILL)
                killed += 1
            time.sleep(chance.uniform(0.2, 3.0))
    assert killed == 5
    subprocess.run(fe(*words, "--retry-failed"), check=True, capture_output=True, env=ONE_THREAD)
    again = [record for record in read_records(out / "records.jsonl") if record.error]  # killed twice over one group
    assert not again
    assert plain(out, once=False) == expected
    assert pictures(out) == pictures(tmp_path / "whole")
    assert_no_scraps(out)


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_worker_and_is_resumed(tmp_path: Path, tiny_scenes: str) -> None:
    words = f"--model {tiny_scenes} --cases scenes:8 --steps 40 --batch 1 --device cpu".split()
    expected, out = undisturbed(words, tmp_path / "whole"), tmp_path / "out"
    with subprocess.Popen(
        fe(*words, "--workers", "2", "--out", out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=ONE_THREAD
    ) as run:
        while not begun(out):
            time.sleep(0.1)
        time.sleep(1.0)
        models = {process for process, (_, called) in below(run.pid).items() if called.startswith("ray::Worker")}
        run.kill()
    held = len((out / "records.jsonl").read_text().splitlines())
    assert 0 < held < len(expected)
    assert models
    wait_until(lambda: not models & processes().keys())
    assert undisturbed([*words, "--workers", "2"], out) == expected
    assert pictures(out) == pictures(tmp_path / "whole")
    assert_no_scraps(out)
