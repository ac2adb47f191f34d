"""The command line as such: quick and lazy, one error policy, completion, plug-ins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from fe.cli.main import COMMANDS, main
from fe.cli.refusal import refusing

LAZY = """
import sys
from fe.cli.main import main
try:
    main(prog_name="fe")
except SystemExit as end:
    code = end.code
heavy = sorted({"torch", "numpy", "PIL", "diffusers", "transformers", "matplotlib"} & set(sys.modules))
print("\\nheavy:", heavy, "code:", code)
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fe.cli.main", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


def lazily(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LAZY, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, timeout=60
    )
    assert "heavy: []" in done.stdout, done.stdout + done.stderr
    return done.stdout


LIGHT = [["--help"], ["--version"], ["list", "presets"], *([name, "--help"] for name in COMMANDS)]


@pytest.mark.parametrize("arguments", LIGHT)
def test_help_and_the_list_of_presets_import_nothing_heavy(arguments: list[str]) -> None:
    assert "code: 0" in lazily(*arguments)


def test_help_is_quick() -> None:
    def once() -> float:
        started = time.perf_counter()
        assert run("--help").returncode == 0
        return time.perf_counter() - started

    assert min(once() for _ in range(5)) <= 0.3  # the best of five: other work on the machine is not ours


def test_help_of_the_group_imports_no_command() -> None:
    probe = "import sys, fe.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60).stdout
    assert "fe.cli.main" in shown
    for name in ("compare", "edit", "generate", "reconstruct", "listing", "check"):
        assert f"'fe.cli.{name}'" not in shown


def test_every_command_of_the_table_is_there_and_says_what_it_does() -> None:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert command.name == name
        assert command.help


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edti"], "no command 'edti'; did you mean edit?"),
        (["paint"], "no command 'paint'"),
        (["--bogus"], "--bogus"),
        (["edit"], "Missing argument 'PICTURE'; see fe edit --help"),
        (["edit", "a.png", "--steps", "0"], "0 is not in the range"),
        (["edit", "a.png", "--steps", "2.5"], "'2.5' is not a valid integer;"),
        (["edit", "a.png", "--seed", "-1"], "-1 is not in the range"),
        (["edit", "a.png", "--solver", "firefly"], "unknown solver 'firefly'; did you mean fireflow?"),
        (["edit", "a.png", "--editor", "flowedti"], "unknown editor 'flowedti'; did you mean flowedit"),
        (["edit", "a.png", "--model", "scene"], "unknown model 'scene'; did you mean scenes?"),
        (["edit", "a.png", "--device", "gpu"], "'gpu' is no device"),
        (["edit", "a.png", "--dtype", "int8"], "int8"),
        (["edit", "a.png", "--set", "n_max=3"], "write NAME.OPTION=VALUE"),
        (["edit", "a.png", "--set", "heun.x=3"], "belongs to nothing in this run, which uses flowedit, euler"),
        (["edit", "a.png", "--set", "flowedit.n_mx=3"], "did you mean n_max?"),
        (["edit", "a.png", "--set", "flowedit.n_max=3", "--set", "flowedit.n_min=4"], "n_min must not exceed n_max"),
        (["edit", "a.png", "--set", "flowedit.target_guidance=nan"], "finite"),
        (["edit", "a.png", "--set", "flowedit.n_max=many"], "whole number"),
        (["edit", "a.png", "--preset", "fireflow@paper-9"], "unknown preset 'fireflow@paper-9'; did you mean fireflow@paper-8"),
        (["edit", "a.png", "--preset", "flowedit@flux", "--editor", "injection"], "is of the editor 'flowedit'; leave out"),
        (
            ["edit", "a.png", "--preset", "fireflow@paper-8", "--set", "flowedit.n_max=3"],
            "which uses injection, fireflow, model",
        ),
        (["edit", "a.png"], "source is missing"),
        (["edit", "a.png", "--out", "b.png"], "'b.png' looks like a file; name a folder"),
        (["generate"], "--prompt"),
        (["generate", "--prompt", "x", "--guidance", "nan"], "not a finite number"),
        (["generate", "--prompt", "x", "--guidance", "inf"], "not a finite number"),
        (["generate", "--prompt", "x", "--size", "big"], "write HEIGHTxWIDTH"),
        (["reconstruct", "a.png", "--steps", "4,0"], "at least 1"),
        (["reconstruct", "a.png", "--steps", "4,,8"], "empty place"),
        (["reconstruct", "a.png", "--solvers", "euler,rk5"], "unknown solver 'rk5'"),
        (["check", "firefly"], "did you mean fireflow?"),
        (["check", str(Path(__file__).parent)], "folder (the folder with prompts.csv or prompts.jsonl)"),
        (["list", "solver"], "solver"),
    ],
)
def test_bad_use_is_one_sentence_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert message in done.stderr
    assert done.stderr.startswith("fe: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert done.exit_code == 2


def refused(fault: BaseException, debug: bool = False) -> str:
    """What the user reads when `fault` is raised here, in code that is neither this package nor a plug-in."""
    with pytest.raises(click.ClickException) as caught, refusing(debug):
        raise fault
    assert caught.value.exit_code == 2
    return caught.value.message


def test_bugs_keep_their_tracebacks() -> None:
    for bug in (TypeError("x"), AssertionError("x"), KeyError("x"), IndexError("x"), RuntimeError("x"), ValueError("x")):
        with pytest.raises(type(bug)), refusing(debug=False):
            raise bug


def test_the_operating_system_is_believed() -> None:
    assert (
        refused(FileNotFoundError(2, "No such file or directory", "a.png")) == "cannot use 'a.png': No such file or directory"
    )


def test_debug_shows_the_traceback() -> None:
    for arguments, environment in ((["--debug"], {}), ([], {"FE_DEBUG": "1"})):
        done = run(*arguments, "edit", "a.png", "--set", "flowedit.n_avg=0", **environment)
        assert "Traceback" in done.stderr
        assert "OptionError" in done.stderr
    assert "Traceback" not in run("edit", "a.png", "--set", "flowedit.n_avg=0").stderr


def complete(words: str, *, word: int) -> list[str]:
    shown = lazily(_FE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(word))
    return [line.partition(",")[2] for line in shown.splitlines() if line.startswith("plain,")]


def test_names_are_completed_without_loading_anything() -> None:
    assert complete("fe rec", word=1) == ["reconstruct"]
    assert complete("fe edit x --solver fire", word=4) == ["fireflow"]
    assert complete("fe edit x --model flux-", word=4) == ["flux-dev", "flux-krea", "flux-schnell"]
    assert complete("fe check re", word=2) == ["reversible-heun"]
    assert complete("fe reconstruct x --solvers euler,re", word=4) == ["euler,reversible-heun"]
    assert complete("fe list mod", word=2) == ["models"]
    assert complete("fe compare --methods fireflow@paper-8,flowedit+eu", word=3) == ["fireflow@paper-8,flowedit+euler"]


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """A folder for PYTHONPATH with an installed plug-in whose module fails to import."""
    info = tmp_path / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fe.solvers]\nshattered = shattered:Solver\n")
    (tmp_path / "shattered.py").write_text("raise RuntimeError('this module is broken\\nin two lines')\n")
    return str(tmp_path)


def test_a_broken_plug_in_is_named_and_the_rest_goes_on(broken: str) -> None:
    done = run("list", "solvers", PYTHONPATH=broken)
    assert done.returncode == 0
    assert "'shattered' of broken-plugin" in done.stdout
    assert "this module is broken" in done.stdout
    assert "fireflow" in done.stdout
    used = run("check", "shattered", PYTHONPATH=broken)
    assert used.returncode == 2
    assert used.stderr.startswith("fe: solver 'shattered' of broken-plugin")
    assert used.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fe.cli.main", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_listing_names_everything_that_is_registered() -> None:
    import fe

    shown = CliRunner().invoke(main, ["list"])
    assert shown.exit_code == 0
    for table in (fe.SOLVERS, fe.EDITORS, fe.MODELS, fe.METRICS, fe.CASES):
        for name in table:
            assert name in shown.stdout
    assert "not usable" not in shown.stdout
    assert "flowedit.n_max" in shown.stdout
    assert "rf-edit@paper" in shown.stdout
    assert "model.exact_time" in shown.stdout
    assert "black-forest-labs/FLUX.1-dev" in shown.stdout


def test_check_passes_an_honest_solver_and_fails_a_liar(monkeypatch: pytest.MonkeyPatch) -> None:
    from fe.solvers.conformance import Finding

    findings = [Finding("global order", "2.0", "2", True), Finding("evaluations", "3", "2", False)]
    monkeypatch.setattr("fe.solvers.conformance.examine", lambda solver: tuple(findings[:1]))
    honest = CliRunner().invoke(main, ["check", "euler"])
    assert (honest.exit_code, "1 of 1 hold" in honest.stdout) == (0, True)
    monkeypatch.setattr("fe.solvers.conformance.examine", lambda solver: tuple(findings))
    liar = CliRunner().invoke(main, ["check", "euler"])
    assert (liar.exit_code, "1 of 2 hold" in liar.stdout, "NO" in liar.stdout) == (1, True, True)


def test_ctrl_c_ends_with_one_line_and_code_130(tiny_scenes: str, tmp_path: Path) -> None:
    command = ["generate", "--prompt", "a red star", "--model", tiny_scenes, "--count", "10000", "--out", str(tmp_path / "out")]
    # A shell lets what it runs in the background ignore Ctrl-C, and a test suite may run there: start without that heritage.
    process = subprocess.Popen(
        [sys.executable, "-m", "fe.cli.main", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert "seed0.png" in process.stdout.readline()  # at work
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said == "fe: interrupted\n"
    assert process.returncode == 130
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert names
    assert all(name.startswith("a-red-star") for name in names)  # nothing half written


@pytest.mark.parametrize("what", ["metrics", "protocols", "models", "cases"])
def test_listing_can_be_read_and_copied_from_a_narrow_terminal(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = set(re.findall(r"[\w@.+/-]+", CliRunner().invoke(main, ["list", what]).stdout))
    monkeypatch.setattr("fe.cli.screen.FILE_WIDTH", 80)
    narrow = CliRunner().invoke(main, ["list", what]).stdout
    assert "\N{HORIZONTAL ELLIPSIS}" not in narrow
    lost = {word for word in words if word not in narrow and len(word) < 25}  # longer ones are broken into two
    assert not lost
