"""--offline: whatever would ask the Hugging Face hub, a plug-in too, says at once that it cannot; no connection is tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PLUGIN = """
from fe.models.base import Loader


class Asking(Loader):
    def load(self, source, setup):
        from huggingface_hub import snapshot_download

        snapshot_download("nobody/nothing")
"""

PRELUDE = """
import contextlib, io, json, os, socket, sys, time

tried, slept = [], []
time.sleep = slept.append  # between tries again


def refuse(*where, **how):
    tried.append(repr(where))
    raise OSError("no network in this test")


for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, refuse)
for name in ("getaddrinfo", "create_connection"):
    setattr(socket, name, refuse)

from fe.cli.main import main

for words in json.loads(sys.argv[1]):
    os.environ.pop("HF_HUB_OFFLINE", None)
    if "huggingface_hub.constants" in sys.modules:
        sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE = False
    tried.clear(), slept.clear()
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
    from huggingface_hub import constants

    found = [code, tried, slept, constants.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE"), said.getvalue()]
    print("ended", json.dumps(found))
"""


class Ended(NamedTuple):
    """How a command ended: `tried` are its connections, `slept` the seconds between them, `offline` what the library took from
    it, `inherited` what processes that it starts will."""

    code: int
    tried: list[str]
    slept: list[float]
    offline: bool
    inherited: str | None
    said: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with a model that asks the hub, found by its entry point."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "fe_asking.py").write_text(PLUGIN)
    about = folder / "fe_asking-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fe-asking\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[fe.models]\nasking = fe_asking:Asking\n")
    return folder


def run(site: Path, home: Path, *commands: list[str]) -> list[Ended]:
    """Commands one after the other in a process of their own, on a machine without a network or downloads: before the first of
    them nothing has loaded the hub's library."""
    told = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    environment = {name: value for name, value in os.environ.items() if name not in told}
    environment |= {"PYTHONPATH": str(site), "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    words = json.dumps([[*command, "--model", "asking"] for command in commands])
    done = subprocess.run([sys.executable, "-c", PRELUDE, words], env=environment, cwd=home, capture_output=True, text=True)
    found = [line.removeprefix("ended ") for line in done.stdout.splitlines() if line.startswith("ended ")]
    assert len(found) == len(commands), done.stderr
    return [Ended(*json.loads(line)) for line in found]


def test_what_is_missing_is_said_at_once_and_nothing_is_asked(site: Path, tmp_path: Path) -> None:
    commands = [
        ["generate", "--prompt", "a red star"],
        ["edit", "scenes:0"],
        ["reconstruct", "scenes:0"],
        ["compare", "--cases", "scenes:1", "--metrics", "truth-psnr"],  # one that loads no library of metrics
    ]
    for command, ended in zip(commands, run(site, tmp_path, *([*one, "--offline"] for one in commands)), strict=True):
        assert (ended.tried, sum(ended.slept)) == ([], 0), command
        assert ended.code == 2
        assert ended.said.startswith("fe: ")
        assert ended.said.count("\n") == 1
        assert (ended.offline, ended.inherited) == (True, "1")


def test_without_it_the_same_model_does_ask(site: Path, tmp_path: Path) -> None:
    (ended,) = run(site, tmp_path, ["generate", "--prompt", "a red star", "--no-offline"])
    assert ended.tried
    assert (ended.offline, ended.inherited) == (False, None)
