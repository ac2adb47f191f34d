"""One process at a time for a run's folder, and what the others are told."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from fe.cli.main import main
from fe.experiments.lock import locked
from filelock import FileLock

MIXTURE = ["--model", "mixture", "--cases", "mixture:2", "--set", "mixture.points=30", "--steps", "2", "--device", "cpu"]
SINCE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
HOLDER = """
import sys, time
from pathlib import Path
from fe.experiments.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_is_opened_once_in_a_process_too(tmp_path: Path) -> None:
    who = rf"is in use by process {os.getpid()} on {re.escape(socket.gethostname())} since {SINCE}; wait for it"
    with locked(tmp_path):
        with pytest.raises(ValueError, match=who), locked(tmp_path):
            pass
        with pytest.raises(ValueError, match=who), locked(tmp_path):  # being refused lets nobody in
            pass
    assert names(tmp_path) == {".lock"}
    with locked(tmp_path):
        pass


def test_a_second_process_is_told_who_holds_the_folder_until_that_is_killed(tmp_path: Path) -> None:
    command = ["compare", *MIXTURE, "--out", str(tmp_path)]
    assert CliRunner().invoke(main, command).exit_code == 0
    held = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for words in ([], ["--overwrite"]):
            result = CliRunner().invoke(main, [*command, *words])
            assert result.exit_code == 2
            said = rf"fe: '.*' is in use by process {holder.pid} on .* since {SINCE}; wait for it, or give --out another folder"
            assert re.fullmatch(said, result.stderr.splitlines()[-1])
        assert {path: path.read_bytes() for path in held} == held
        holder.kill()
    assert names(tmp_path) == {path.name for path in held} | {".holder"}
    assert CliRunner().invoke(main, command).exit_code == 0
    assert names(tmp_path) == {path.name for path in held}


@pytest.mark.parametrize("fault", [NotImplementedError("no flock here"), OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))])
def test_a_file_system_without_locks_is_refused(fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: FileLock) -> None:
        raise fault

    monkeypatch.setattr(FileLock, "acquire", failing)
    said = rf"cannot be locked against other processes \({re.escape(str(fault))}\); give --out"
    with pytest.raises(ValueError, match=said), locked(tmp_path):
        pass


def test_a_folder_that_is_somebody_else_s_is_not_even_locked(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(main, ["compare", *MIXTURE, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no run" in result.stderr
    assert names(tmp_path) == {"thesis.txt"}
