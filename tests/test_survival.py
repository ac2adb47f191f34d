"""A comparison that is killed at any moment: what it comes to in the end is what it would have come to undisturbed."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fe.cli.main import main
from fe.experiments.folder import RunFolder
from PIL import Image

FE = (sys.executable, "-m", "fe.cli.main")
MIXTURE = ["--model", "mixture", "--cases", "mixture:40", "--set", "mixture.points=60", "--steps", "6", "--device", "cpu"]
SCENES = ["--cases", "scenes:16", "--steps", "6", "--batch", "1", "--device", "cpu"]

Content = dict[str, dict[str, Any]]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def started(words: list[str], out: Path) -> subprocess.Popen[bytes]:
    """`fe compare` as a process of its own, alone in its group."""
    command = [*FE, "compare", *words, "--out", str(out)]
    return subprocess.Popen(
        command, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def undisturbed(words: list[str], out: Path) -> Path:
    assert started(words, out).wait(300) == 0
    return out


def content(out: Path) -> Content:
    """The records by key, without what time and the number of sessions change. Every cell has one line."""
    lines = [json.loads(line) for line in (out / "records.jsonl").read_bytes().splitlines()]
    for line in lines:
        del line["session"]
        line["cost"] = {name: line["cost"][name] for name in ("batch", "calls", "rows")}
    by_key = {line["key"]: line for line in lines}
    assert len(by_key) == len(lines)
    return by_key


def pictures(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in (out / "pictures").rglob("*") if path.is_file()}


def assert_sound(out: Path) -> None:
    """What holds at every moment: lines are whole but for the last, and every picture that one names is there and whole."""
    if (out / "records.jsonl").exists():
        for line in (out / "records.jsonl").read_bytes().split(b"\n")[:-1]:
            name = json.loads(line)["picture"]
            if name is not None:
                with Image.open(out / name) as picture:
                    picture.load()


def assert_the_same(out: Path, expected: Path) -> None:
    """Cell for cell to the last bit, picture for picture, with nothing left over."""
    assert_sound(out)
    assert content(out) == content(expected)
    assert pictures(out) == pictures(expected)
    assert [path.name for path in out.iterdir() if path.name.startswith(".") and path.name != ".lock"] == []


def size(out: Path) -> int:
    records = out / "records.jsonl"
    return records.stat().st_size if records.exists() else 0


def kill_some_time(process: subprocess.Popen[bytes], out: Path, growth: int, chance: random.Random) -> bool:
    """Kill the process and all it started: in one case of six while it starts, otherwise some moment after the records have
    grown by up to `growth` bytes. False if it ends before."""
    until, first = time.monotonic() + 300, size(out)
    if chance.random() < 1 / 6:
        until = time.monotonic() + chance.uniform(0, 4)
    wanted = chance.uniform(1, growth)
    while process.poll() is None and size(out) - first < wanted and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.05))
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def survived(words: list[str], out: Path, kills: int, growth: int) -> list[int]:
    """Run `words`, killed that many times. The size of the records at each kill."""
    chance = random.Random(20)
    sizes: list[int] = []
    for _ in range(kills):
        assert kill_some_time(started(words, out), out, growth, chance), f"it ended after {len(sizes)} kills"
        assert_sound(out)
        sizes.append(size(out))
    assert started(words, out).wait(300) == 0
    return sizes


@pytest.mark.slow
def test_a_run_of_scenes_that_is_killed_thirty_times(tmp_path: Path) -> None:
    expected = undisturbed(SCENES, tmp_path / "expected")
    out = tmp_path / "out"
    sizes = survived(SCENES, out, kills=30, growth=size(expected) // 60)
    print(sizes, size(expected))
    assert len(set(sizes)) > 15
    assert_the_same(out, expected)


SERVER = """
import os, signal, sys
from pathlib import Path
import torch
from fe.experiments.compare import carry_out, open_folder, prepare
from fe.experiments.plan import Comparison
from fe.experiments.run import Effort
from fe.experiments.words import Method

torch.set_num_threads(1)
methods = (Method("flowedit", "euler"), Method("inversion", "euler"))
prepared = prepare(Comparison(methods, sys.argv[1], "scenes", 4, steps=(2,)))

def dying(number):
    'Kill this process right before it forces or moves a file for the number-th time.'
    seen = 0
    def counted(plain):
        def call(*given):
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*given)
        return call
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)

for line in sys.stdin:
    number, out = line.split()
    child = os.fork()
    if child == 0:
        dying(int(number))
        with open_folder(prepared, Path(out), overwrite=False) as folder:
            carry_out(prepared, folder, lambda *now: None, Effort(batch=2))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs one comparison in children, which are spared the imports and the loading."""


@pytest.fixture(scope="module")
def run(tiny_scenes: str) -> Iterator[Callable[[int, Path], int]]:
    """Runs a comparison into a folder, in a process that dies before it forces or moves a file for the given time, and returns
    its exit code: -9 if it died."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, tiny_scenes], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def run(number: int, out: Path) -> int:
            print(number, out, file=asked, flush=True)
            return int(answers.readline())

        yield run
        asked.close()


def test_a_run_that_is_killed_right_before_it_forces_or_moves_a_file(tmp_path: Path, run: Callable[[int, Path], int]) -> None:
    """For the first time, then for the second time, and so on, so that each kind of file is met half-written and not yet
    moved."""
    out, left = tmp_path / "out", set()
    codes: list[int] = []
    assert run(0, tmp_path / "expected") == 0
    while not codes or codes[-1] == -9:
        codes.append(run(1 + len(codes), out))
        assert_sound(out)
        left |= {path.parent.name for path in out.rglob(".fe-*")}
    assert codes[-1] == 0
    assert len(codes) > 15
    assert {"out", "source", "flowedit+euler-2"} <= left
    assert_the_same(out, tmp_path / "expected")


def test_what_a_killed_run_left_is_removed_though_nobody_makes_it_again(
    tmp_path: Path, run: Callable[[int, Path], int]
) -> None:
    out = tmp_path / "out"
    assert run(0, out) == 0
    lines = (out / "records.jsonl").read_text().splitlines(keepends=True)
    last = json.loads(lines[-1])
    failed = json.dumps(last | {"picture": None, "error": "RuntimeError: no"})  # so that it is not run again
    (out / "records.jsonl").write_text("".join([*lines[:-1], failed + "\n"]))
    passing = (out / ".fe-0123", out / "pictures" / "source" / ".fe-4567")
    for path in (*passing, out / "pictures" / "mine.png", out / "notes.txt"):
        path.write_text("...")
    before = {path for path in out.rglob("*") if path.is_file()}
    assert run(0, out) == 0
    assert before - {path for path in out.rglob("*") if path.is_file()} == {*passing, out / last["picture"]}


def test_a_command_that_is_killed_twice_at_random(tmp_path: Path) -> None:
    expected = compared(tmp_path / "expected")
    survived([*MIXTURE, "--batch", "2"], tmp_path / "out", kills=2, growth=size(expected) // 10)
    assert content(tmp_path / "out").keys() == content(expected).keys()


def compared(out: Path, *words: str, code: int = 0) -> Path:
    """The mixture comparison, in this process."""
    result = CliRunner().invoke(main, ["compare", *MIXTURE, *words, "--out", str(out)])
    assert result.exit_code == code, result.output
    return out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 100 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a disk of its own cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def said(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return str(result.stderr.splitlines()[-1])


def test_a_disk_that_is_full_keeps_what_it_has_and_the_same_command_goes_on(tmp_path: Path, disk: Path) -> None:
    expected, out = compared(tmp_path / "expected"), disk / "out"
    words = ["compare", *MIXTURE, "--out", str(out)]
    full = said(CliRunner().invoke(main, words))
    found = re.fullmatch(
        r"fe: cannot use '(.*)': No space left on device; (\d+) of 160 cells are kept in .*; the same .*", full
    )
    assert found is not None, full
    assert Path(found[1]) == out / "records.jsonl"
    assert 0 < int(found[2]) < 160
    kept = (out / "records.jsonl").read_bytes()
    assert kept.count(b"\n") >= int(found[2])
    assert "No space left on device" in said(CliRunner().invoke(main, words))  # still full: said again, nothing lost
    assert (out / "records.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    compared(out)
    assert (out / "records.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert_the_same(out, expected)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    monkeypatch.setattr("fe.experiments.compare.prepare", lambda *given, **more: pytest.fail("work was begun"))
    for out in (disk, disk / "new"):
        refused = said(CliRunner().invoke(main, ["compare", *MIXTURE, "--out", str(out)]))
        assert (
            refused == f"fe: the output folder {str(out)!r} cannot be written (Read-only file system); give --out another one"
        )


def test_a_folder_that_becomes_read_only_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, out, plain, calls = compared(tmp_path / "expected"), tmp_path / "out", os.fsync, []

    def failing(file: int) -> None:
        calls.append(file)
        if len(calls) > 9:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        plain(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        refused = said(CliRunner().invoke(main, ["compare", *MIXTURE, "--out", str(out)]))
    assert re.search(
        r"records.jsonl': Read-only file system; \d+ of 160 cells are kept in .*; the same command goes on", refused
    )
    assert_the_same(compared(out), expected)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_one_line_that_says_what_is_kept(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, out, keep, calls = compared(tmp_path / "expected"), tmp_path / "out", RunFolder.keep, []

    def signalled(self: Any, finished: Any) -> None:
        keep(self, finished)
        calls.append(finished)
        if len(calls) == 3:
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt:
                raise KeyboardInterrupt from None  # as Ray does, which answers signals while it waits

    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "keep", signalled)
        result = CliRunner().invoke(main, ["compare", *MIXTURE, "--out", str(out)])
    assert result.exit_code == code
    last = result.stderr.splitlines()[-1]
    assert re.fullmatch(r"fe: interrupted: \d+ of 160 cells are kept in .*; the same command goes on from there", last)
    assert signal.getsignal(number) is before
    assert_the_same(compared(out), expected)


TWICE = """
import os, signal, time
from fe.cli.ending import stoppable
with stoppable():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)
        print("still here", flush=True)
"""


def test_a_second_signal_ends_at_once() -> None:
    ended = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, b"")


def test_a_signal_that_is_not_to_be_heard_is_not() -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + TWICE
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (0, b"still here\n")
