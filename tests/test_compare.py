"""`fe compare` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fe import registry
from fe.cli.main import main
from PIL import Image

MIXTURE = ("--model", "mixture", "--cases", "mixture:3", "--set", "mixture.points=60", "--steps", "10", "--device", "cpu")


def compare(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, words)])


def refused(result: Result) -> str:
    """The one sentence of a refusal: exit code 2, one line, no traceback."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("fe: left out")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("fe: ")
    assert result.stdout == ""
    return lines[0]


def test_the_mixture_experiment_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = compare(*MIXTURE, "--out", out)
    assert result.exit_code == 0, result.output
    for words in ("inversion+euler", "flowedit+euler", "from noise", "transport cost", "wrong mode", "distance to the mode"):
        assert words in result.stdout
    assert "Reconstruction" not in result.stdout
    assert result.stdout.rstrip().splitlines()[-1].startswith("Edits: flowedit+euler has the lowest transport cost")
    written = {"run.json", "records.jsonl", "table.txt", "quality.png", "paths.png"}
    assert {path.name for path in out.glob("[!.]*")} == written
    assert len((out / "records.jsonl").read_text().splitlines()) == 12
    assert json.loads((out / "run.json").read_text())["comparison"]["methods"] == ["inversion+euler", "flowedit+euler"]


def test_the_same_command_shows_a_finished_run_again(tmp_path: Path) -> None:
    first = compare(*MIXTURE, "--out", tmp_path / "out")
    again = compare(*MIXTURE, "--out", tmp_path / "out")
    assert "0 of 12 cells" in first.stderr
    assert again.stderr.splitlines() == ["12 of 12 cells"]
    assert again.stdout == first.stdout
    assert "holds a different run" in refused(compare(*MIXTURE, "--seeds", "7", "--out", tmp_path / "out"))
    replaced = compare(*MIXTURE, "--seeds", "7", "--out", tmp_path / "out", "--overwrite")
    assert replaced.exit_code == 0
    assert "0 of 12 cells" in replaced.stderr


def test_a_folder_of_something_else_is_told_apart(tmp_path: Path) -> None:
    """What is another there is named; a folder of shards is no place for a whole run."""
    words = [*MIXTURE, "--editor", "flowedit"]
    assert compare(*words, "--out", tmp_path / "run", "--seeds", "1").exit_code == 0
    told = refused(compare(*words, "--out", tmp_path / "run", "--set", "flowedit.n_max=3"))
    assert "holds a different run (seeds, settings); give --out another folder, or --overwrite" in told
    assert compare(*words, "--out", tmp_path / "parts", "--shard", "1/2").exit_code == 0
    assert "holds shards; fe report joins them, --shard runs one" in refused(compare(*words, "--out", tmp_path / "parts"))


def test_pictures_through_a_flux_model(tmp_path: Path, tiny_folder: Path) -> None:
    words = f"--model flux:{tiny_folder} --cases scenes:2 --steps 2,3 --solvers euler,alf --device cpu".split()
    result = compare(*words, "--editors", "flowedit", "--batch", "2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    (carried,) = [line for line in lines if line.split()[:4] == ["alf,", "state", "carried", "3"]]
    (codec,) = [line for line in lines if line.split()[:2] == ["codec", "0"]]
    assert carried.split()[6] == codec.split()[3]  # the RMSE: a carried state lands on the codec's own error
    for words_shown in ("PSNR to truth", "asked changed", "others kept", "SSIM to source", "codec of the truth"):
        assert words_shown in result.stdout
    assert "codec of the truth" in (tmp_path / "table.txt").read_text(encoding="utf-8")
    pictures = {path.parent.name for path in (tmp_path / "pictures").rglob("*.png")}
    assert {"source", "truth", "flowedit+euler-2", "flowedit+alf-3", "reconstruct-codec", "from-noise"} <= pictures
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width == 176 + 132 * 8  # source, truth, two solvers with two step counts, two controls
    assert not compare(*words, "--no-pictures", "--out", tmp_path / "bare").exit_code
    assert {path.name for path in (tmp_path / "bare").glob("[!.]*")} == {
        "run.json",
        "records.jsonl",
        "table.txt",
        "quality.png",
        "frontier.png",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--solvers", "eulr"], "did you mean euler"),
        (["--editor", "flowedti"], "did you mean flowedit"),
        (["--model", "sceens"], "did you mean scenes"),
        (["--cases", "scens:3"], "did you mean scenes"),
        (["--cases", "scenes:0"], "at least 1"),
        (["--steps", "0"], "at least 1"),
        (["--methods", "flowedit-euler"], "write EDITOR+SOLVER"),
        (["--methods", "flowedit+eulr"], "did you mean euler"),
        (["--methods", "flowedit+euler", "--solvers", "euler"], "leave out solvers"),
        (["--match-nfe", "48", "--steps", "8"], "leave out steps"),
        (
            [*MIXTURE[:-4], "--match-nfe", "1"],
            "one step already costs 2 evaluations, more than the 1 allowed; allow more (in inversion+euler)",
        ),
        (["--set", "foo"], "NAME.OPTION=VALUE"),
        (["--set", "foo.bar=1"], "belongs to nothing in this run"),
        ([*MIXTURE, "--set", "flowedit.n_mx=1"], "did you mean n_max"),
        ([*MIXTURE, "--set", "flowedit.target_guidance=nan"], "finite number, got nan"),
        ([*MIXTURE, "--set", "flowedit.target_guidance=3"], "every guidance must be 1, got 3.0"),
        ([*MIXTURE, "--set", "flowedit.n_min=5", "--set", "flowedit.n_max=3"], "n_min must not exceed n_max"),
        ([*MIXTURE, "--set", "flowedit.n_min=10", "--set", "flowedit.n_max=none"], "n_min=10 exceeds n_max=9"),
        ([*MIXTURE, "--editors", "injection"], "no attention features to inject; use another editor (in injection+euler)"),
        (["--out", "/dev/null/x"], "cannot be written"),
        (["--out", "/proc/x"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    words: Sequence[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(compare(*words))
    assert list(tmp_path.iterdir()) == []


def broken_plugin(group: str) -> EntryPoints:
    entries = [EntryPoint("broken", "no_such_module:Solver", "fe.solvers")]
    return EntryPoints(entry for entry in entries if entry.group == group)


def test_a_plugin_that_fails_to_import_is_named_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", broken_plugin)
    result = compare(*MIXTURE, "--solvers", "broken,euler", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0].startswith("fe: left out: solver 'broken' of no_such_module:Solver failed to import")
    assert "flowedit+euler" in result.stdout
    assert "failed to import" in refused(compare(*MIXTURE, "--solvers", "broken", "--out", tmp_path / "other"))


def test_an_interrupt_is_one_line_and_keeps_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fe.experiments.folder import RunFolder

    keep, calls = RunFolder.keep, []

    def interrupted(self: Any, records: Any) -> None:
        keep(self, records)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "keep", interrupted)
        result = compare(*MIXTURE, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("fe: interrupted: 6 of 12 cells are kept in ")
    assert "6 of 12 cells" in compare(*MIXTURE, "--out", tmp_path / "out").stderr


def test_a_run_in_which_nothing_comes_out_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fe.models.mixture import MixtureModel

    def decode(self: Any, latents: Any) -> Any:
        raise RuntimeError("no codec today")

    monkeypatch.setattr(MixtureModel, "decode", decode)
    result = compare(*MIXTURE, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "every cell failed; the first: mixture-0-0000 in inversion+euler-10: RuntimeError: no codec today" in result.stderr
    assert "--retry-failed runs them again" in result.stderr


def test_the_commands_help_costs_no_heavy_import() -> None:
    code = (
        "import sys; from fe.cli.main import main; main(['compare', '--help'], standalone_mode=False); "
        "print([name for name in ('torch', 'rich', 'matplotlib', 'scipy', 'PIL', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
