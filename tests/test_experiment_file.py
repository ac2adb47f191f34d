"""A comparison held in a file: the same cells as by flags, flags before it, and whatever is wrong said with its line."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from itertools import count, product
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from fe.cli.compare import compare as command
from fe.cli.experiment import THIS_TIME
from fe.cli.main import main
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs"
SMALL = "model: mixture\ncases: mixture:2\nsteps: 4\ndevice: cpu\neditors: flowedit\nset:\n  mixture: {points: 40}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def compare(*words: str) -> Result:
    return CliRunner().invoke(main, ["compare", *words])


def ran(*words: str) -> dict[str, Any]:
    """The run.json of a comparison that is run for this in a folder of its own."""
    folder = next(folder for number in count() if not (folder := Path(f"out-{number}")).exists())
    result = compare(*words, "--out", str(folder))
    assert result.exit_code == 0, result.output
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run


def labels(run: dict[str, Any]) -> set[str]:
    """The methods' rows, with their steps."""
    return {f"{row['label']} {row['steps']}" for row in run["rows"] if not row["control"]}


def refused(name: str, text: str, *words: str) -> str:
    """What is said of a file of that text after its name, with nothing run or written."""
    Path(name).write_bytes(text.encode())
    before = sorted(Path().rglob("*"))
    result = compare(name, *words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert sorted(Path().rglob("*")) == before
    return line.removeprefix(f"fe: {name}, ")


def of_docs(language: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (DOCS / "experiments.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(blocks[0])


def test_every_key_stands_in_the_docs() -> None:
    page = (DOCS / "experiments.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^- A key is .*?(?=^- )", page, flags=re.DOTALL | re.MULTILINE)
    keys = {one.opts[0].removeprefix("--").replace("-", "_") for one in command.params if isinstance(one, click.Option)}
    assert keys - THIS_TIME - {"set"} == set(re.findall(r"`([a-z_]+)`", told))


def test_the_examples_of_the_docs_are_one_comparison() -> None:
    for language in ("yaml", "toml"):
        Path(f"experiment.{language}").write_text(of_docs(language))
    first = compare("experiment.yaml")
    assert first.exit_code == 0, first.output
    run = json.loads(Path("results/how-much/run.json").read_text())
    spanned = product(("euler", "heun"), (3, 6), (6, 12))
    assert labels(run) == {f"flowedit+{solver} n_max={n_max} {steps}" for solver, n_max, steps in spanned}
    comparison = run["comparison"]
    assert comparison["settings"]["flowedit"] == {"n_max": "3,6"}
    assert (comparison["model"], comparison["cases"], comparison["count"]) == ("mixture", "mixture", 4)
    assert (comparison["steps"], comparison["seeds"], comparison["setup"]["device"]) == ([6, 12], [0, 1], "cpu")
    for words in (["experiment.toml"], shlex.split(of_docs("sh").replace("\\\n", " "))[2:]):
        again = compare(*words)
        assert again.exit_code == 0, again.output
        assert "0 of" not in again.stderr  # all cells were there
        assert again.stdout == first.stdout


FILE = (
    SMALL.replace("editors: flowedit", "solvers: [euler, heun]\neditors: [flowedit, inversion]")
    + "  flowedit: {n_max: 3, n_avg: 2}\n"
)
FLAGS = ["--model", "mixture", "--cases", "mixture:2", "--device", "cpu", "--set", "mixture.points=40"]


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        ("", "--steps 4 --solvers euler,heun --editors flowedit,inversion --set flowedit.n_max=3 --set flowedit.n_avg=2"),
        (
            "--steps 3 --set flowedit.n_max=2 --solvers euler",
            "--steps 3 --solvers euler --editors flowedit,inversion --set flowedit.n_max=2 --set flowedit.n_avg=2",
        ),
        (
            "--set flowedit.n-max=1,2",
            "--steps 4 --solvers euler,heun --editors flowedit,inversion --set flowedit.n_max=1,2 --set flowedit.n_avg=2",
        ),
        ("--methods inversion+fireflow", "--steps 4 --methods inversion+fireflow"),
        ("--editors inversion", "--steps 4 --solvers euler,heun --editors inversion"),
        (
            "--match-nfe 16",
            "--match-nfe 16 --solvers euler,heun --editors flowedit,inversion --set flowedit.n_max=3 --set flowedit.n_avg=2",
        ),
    ],
)
def test_flags_go_before_the_file(flags: str, same: str) -> None:
    Path("experiment.yaml").write_text(FILE)
    by_file, by_flags = ran("experiment.yaml", *flags.split()), ran(*FLAGS, *same.split())
    assert by_file["plan"] == by_flags["plan"]
    assert by_file["rows"] == by_flags["rows"]


def test_a_flag_puts_methods_and_counted_steps_of_the_file_aside() -> None:
    Path("experiment.yml").write_text(
        "model: mixture\ncases: mixture:2\ndevice: cpu\nmethods:\n- sdedit+heun\nmatch_nfe: 9\nset:\n  mixture: {points: 40}\n"
        "  sdedit: {strength: 0.5}\n  heun: {}\n"
    )
    given = ran("experiment.yml", "--editors", "flowedit", "--solvers", "euler", "--steps", "3")
    assert labels(given) == {"flowedit+euler 3"}
    assert labels(ran("experiment.yml")) == {"sdedit+heun 9"}  # 4 of 9 steps, with two evaluations each


def test_truth_values_can_be_taken_back(tiny_scenes: str) -> None:
    Path("experiment.yaml").write_text("pictures: no\ncases: scenes:1\nsteps: 1\nsolvers: euler\ndevice: cpu\nout: out\n")
    words = ("experiment.yaml", "--model", tiny_scenes)
    assert compare(*words).exit_code == 0
    assert not Path("out/pictures").exists()
    assert compare(*words, "--pictures").exit_code == 0
    assert Path("out/pictures/source").is_dir()


def test_an_empty_file_is_a_comparison_with_all_defaults() -> None:
    for number, text in enumerate(("", "# nothing yet\n", "---\n", "\ufeff")):
        Path(f"{number}.yaml").write_text(text, encoding="utf-8")
    Path("4.toml").write_text("")
    plans = {ran(name, *FLAGS)["plan"] for name in ("0.yaml", "1.yaml", "2.yaml", "3.yaml", "4.toml")}
    assert plans == {ran(*FLAGS)["plan"]}


DEEP = "lists or mappings stand too deep inside of each other"
YAML = [
    ("model: mixture\nsolver: euler", "line 2: unknown key 'solver'; did you mean solvers?"),
    ("\n\noverwrite: true", "line 3: overwrite is for one time and stands in no file; say --overwrite on the command line"),
    ("1: 2", "line 1: unknown key '1'; known: batch"),
    ("? [a, b]\n: 2", "line 1: a key is a plain name, got a list or a mapping"),
    ("steps:\n  - 4\n  - a", "line 3: steps: 'a' must be whole numbers of at least 1"),
    ("steps: []", "line 1: steps is an empty list"),
    ("steps: 1,,2", "line 1: steps has an empty place"),
    ("steps: {a: 1}", "line 1: steps takes plain values, or a list of them, got a mapping"),
    ("steps: [[1]]", "line 1: steps takes plain values"),
    ("model: mixture\nsteps:", "line 2: a value is missing"),
    ("batch: many", "line 1: batch: 'many' is not a valid integer"),
    ("batch: [1, 2]", "line 1: batch takes one value, got a list"),
    ("seeds: -1", "line 1: seeds: '-1' must be whole numbers of at least 0"),
    ("pictures: maybe", "line 1: pictures must be true or false, got 'maybe'"),
    ("model: sceens", "line 1: model: unknown model 'sceens'; did you mean scenes?"),
    ("solvers:\n- euler\n- eulr", "line 3: solvers: unknown solver 'eulr'; did you mean euler"),
    ("editors: flowedti", "line 1: editors: unknown editor 'flowedti'; did you mean flowedit"),
    ("methods: [flowedit+eulr]", "line 1: methods: unknown solver 'eulr'; did you mean euler"),
    ("cases: scenes:0", "line 1: cases: at least 1 case must be asked for"),
    ("set: 3", "line 1: set takes a mapping of names to their options, got '3'"),
    ("set:\n  flowedit: 3", "line 2: flowedit takes a mapping of options to values, got '3'"),
    ("set:\n  flowedti:\n    n_max: 3", "line 2: unknown editor, solver, case set or metric 'flowedti'; did you mean flowe"),
    ("set:\n  flowedit:\n    n_avg: 2\n    n_mx: 3", "line 4: FlowEdit has no option 'n_mx'; did you mean n_max?"),
    ("set:\n  flowedit:\n    n_max: [3, x]", "line 3: FlowEdit.n_max must be a whole number, got 'x'"),
    ("set:\n  flowedit:\n    n_max: [3, -4]", "line 3: FlowEdit.n_max must be at least 0, got -4"),
    ("set:\n  flowedit:\n    n_max: [3, 03]", "line 3: n_max has the value 3 twice"),
    ("set:\n  flowedit:\n    n_max: 3\n    n-max: 4", "line 4: n-max stands on line 3 already"),
    ("set:\n  scenes:\n    count: 3", "line 3: ScenesCases has no option 'count'"),
    ("set:\n  model:\n    count: 3", "line 3: ScenesLoader has no option 'count'"),
    (
        "steps: 2\nset:\n  heun: {}\n  sdedit:\n    strength: 0.5",
        "line 5: sdedit belongs to nothing in this run, which uses flow",
    ),
    ("steps: !!python/object/apply:os.system ['touch x']", "line 1: tags are not read, got !!python/object/apply:os.system;"),
    ("model: mixture\nsteps: !!str 3", "line 2: tags are not read, got !!str"),
    ("steps: ! 3", "line 1: tags are not read, got !;"),
    ("model: &a mixture", "line 1: anchors (&name) and aliases (*name) are not read"),
    ("\nmodel: *a", "line 2: anchors (&name) and aliases (*name) are not read"),
    ("model: mixture\n---\nmodel: scenes", "line 3: a second document begins"),
    ("model: mixture\nsteps: 3\nmodel: scenes", "line 3: 'model' stands on line 1 already"),
    ("- a\n- b", "line 1: an experiment is a mapping of names to values, got a list"),
    ("model: mixture\nsteps: [1, 2\nbatch: 3", "line 3: this is no YAML (expected ',' or ']', but got ':')"),
    ("model: mixture\nsteps: \x01", "line 2: this is no YAML (character 0x1 is not allowed)"),
    ("set: {flowedit: {n_max: [[3]]}}", f"line 1: {DEEP}"),
    ("solvers: euler,heun,euler", "line 1: solvers holds 'euler' twice"),
    ("editors:\n- flowedit\n- flowedit", "line 3: editors holds 'flowedit' twice"),
    ("methods:\n- flowedit+euler\n- flowedit@sd3\n- flowedit+euler", "line 4: methods holds 'flowedit+euler' twice"),
    ("steps: [4, 8, 04]", "line 1: steps holds '04' twice"),
    ("seeds:\n- 1\n- 1", "line 3: seeds holds '1' twice"),
    ("methods: flowedit+euler\n\nsolvers: euler", "line 3: methods and solvers contradict each other"),
    ("match_nfe: 20\nsteps: 3", "line 2: steps and match_nfe contradict each other"),
]
TOML = [
    ("model = 'mixture'\nsolver = 'euler'", "line 2: unknown key 'solver'; did you mean solvers?"),
    ("model = 'mixture'\n\n[set.flowedit] # how\nn_avg = 1\nn_mx = 3", "line 5: FlowEdit has no option 'n_mx'"),
    ("set.flowedit.n_avg = 1\nset.\"flowedit\".n_max = [3,\n 'x']", "line 2: FlowEdit.n_max must be a whole number, got 'x'"),
    ("[set]\n\nflowedit = { n_mx = 3 }", "line 3: FlowEdit has no option 'n_mx'"),
    ("[[set]]\nx = 1", "line 1: set takes a mapping of names to their options, got a list"),
    ("steps = true", "line 1: steps: 'true' must be whole numbers"),
    ("\nseeds = [0, 1.5]", "line 2: seeds: '1.5' must be whole numbers"),
    ("seeds = [0, 1,\n 1]", "line 1: seeds holds '1' twice"),
    ("model = 'mixture'\nmodel = 'scenes'", "line 2: this is no TOML (Cannot overwrite a value)"),
    ("model = 'mixture'\nsteps = [1, 2", "line 2: this is no TOML (Unclosed array)"),
    ("model = 'mixture'\nsteps = " + "9" * 5000, "fe: experiment.toml is no TOML (Exceeds the limit"),
    ("[set.flowedit.n_max.a.b]", f"line 1: {DEEP}"),
    ('out = "a\\u0000b"', "line 1: out: 'a\\x00b' is no path"),
]


@pytest.mark.parametrize(("text", "said"), YAML)
def test_bad_yaml_is_one_sentence_with_its_line(text: str, said: str) -> None:
    assert refused("experiment.yaml", text).startswith(said)


@pytest.mark.parametrize(("text", "said"), TOML)
def test_bad_toml_is_one_sentence_with_its_line(text: str, said: str) -> None:
    assert refused("experiment.toml", text).startswith(said)


def test_methods_that_come_to_the_same_have_a_line(tiny_scenes: str) -> None:
    options = "set:\n  flowedit: {n_max: 1, source_guidance: 1.5, target_guidance: 5.5}\n"
    rest = f"cases: scenes:1\nsteps: 2\ndevice: cpu\n{options}"
    words = ("--model", tiny_scenes)
    same = "flowedit+euler-2 and flowedit@flux-2 are one and the same; leave one of them out"
    methods = "methods:\n- flowedit+euler\n- flowedit@flux\n"
    assert refused("experiment.yaml", rest + methods, *words) == f"line 6: {same}"
    by_flag = ("--methods", "flowedit+euler,flowedit@flux")
    assert refused("experiment.yaml", rest, *words, *by_flag) == f"fe: {same}"


@pytest.mark.parametrize("path", ["../x", "../here-too", "/tmp/x", "inner/../../x", "link", "link/x", "inner/up/x"])
def test_paths_stay_in_the_folder_of_the_file(path: str, here: Path) -> None:
    for folder in (here / "inner", here.parent / "here-too", here.parent / "x"):
        folder.mkdir()
    (here / "link").symlink_to(here.parent)
    (here / "inner" / "up").symlink_to("../..")
    outside = f"{path!r} lies outside the folder of the experiment file; give it on the command line instead"
    assert refused("experiment.yaml", f"steps: 1\nout: {path}") == f"line 2: out: {outside}"
    assert refused("experiment.yaml", f"\ncases: folder:{path}") == f"line 2: cases: {outside}"
    assert refused("experiment.toml", f"model = 'flux:{path}'") == f"line 1: model: {outside}"
    assert refused("experiment.toml", f"[set.folder]\npath = '{path}'") == f"line 2: folder.path: {outside}"
    Path("experiment.yaml").write_text(SMALL + "out: ../a")
    assert compare("experiment.yaml", "--out", "../x").exit_code == 2  # a file that is wrong is not read in part
    bare = SMALL + "out: inner"
    Path("experiment.yaml").write_text(bare)
    assert compare("experiment.yaml", "--out", "../x/on").exit_code == 0
    assert Path("../x/on/run.json").exists()
    assert not list(Path("inner").glob("*.json"))


def test_paths_start_from_the_folder_of_the_file(here: Path, tiny_scenes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = here / "work"
    (work / "pictures").mkdir(parents=True)
    Image.new("RGB", (64, 64), "teal").save(work / "pictures" / "a.png")
    shutil.copyfile(work / "pictures" / "a.png", work / "pictures" / "b.png")
    prompts = "picture,source,target\na.png,a red circle,a blue circle\nb.png,a red circle,a blue circle\n"
    (work / "pictures" / "prompts.csv").write_text(prompts)
    shutil.copytree(tiny_scenes.partition(":")[2], work / "tiny")
    (work / "experiment.yaml").write_text(
        "model: scenes:tiny\ncases: folder:pictures:1\nout: results/one\nsteps: 1\nsolvers: euler\ndevice: cpu\n"
    )
    result = compare("work/experiment.yaml")
    assert result.exit_code == 0, result.output
    assert json.loads((work / "results" / "one" / "run.json").read_text())["cases"] == ["a.png"]
    assert not (here / "results").exists()
    monkeypatch.chdir(work)
    again = compare("experiment.yaml")
    assert "0 of" not in again.stderr
    assert again.exit_code == 0, again.output


def test_a_folder_of_where_the_command_runs_is_no_model_of_the_file(here: Path) -> None:
    (here / "tiny").mkdir()
    (here / "work").mkdir()
    text = "steps: 1\nmodel: tiny"
    assert refused("work/e.yaml", text) == "line 2: model: there is no folder 'tiny' beside the experiment file"
    assert refused("work/e.yaml", "model: flux:some/where/else") == (
        "line 1: model: there is no folder 'some/where/else' beside the experiment file"
    )


def test_the_shell_completes_files_and_help_needs_no_file() -> None:
    complete = ShellComplete(main, {}, "fe", "_FE_COMPLETE")
    assert [item.type for item in complete.get_completions(["compare"], "exp")] == ["file"]
    Path("bad.yaml").write_text("solver: euler\n")
    assert [item.value for item in complete.get_completions(["compare", "bad.yaml"], "--solv")] == ["--solvers", "--solver"]
    for words in (("bad.yaml", "--help"), ("--help", "bad.yaml")):
        result = compare(*words)
        assert result.exit_code == 0
        assert "[EXPERIMENT]" in result.stdout


def test_what_is_no_experiment_file_at_all() -> None:
    Path("latin.yaml").write_bytes(b"model: mixture\nout: caf\xe9\n")
    assert compare("latin.yaml").stderr == "fe: latin.yaml, line 2: this is not UTF-8 text\n"
    Path("large.toml").write_text("# " + "x" * 1_000_000)
    assert compare("large.toml").stderr == "fe: large.toml is larger than 1 MB, which no experiment needs\n"
    assert "its name must end in .yaml, .yml, .toml" in compare("experiment.json").stderr
    assert compare("absent.yaml").stderr == "fe: cannot use 'absent.yaml': No such file or directory\n"
    assert compare("absent.yaml").exit_code == 2


def test_hostile_files_are_refused_at_once() -> None:
    laughs = "a: &a [lol, lol]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    began = time.monotonic()
    assert refused("laughs.yaml", laughs).startswith("line 1: anchors")
    assert refused("deep.yaml", "steps: " + "[" * 900_000) == f"line 1: {DEEP}"
    Path("deep.toml").write_text("steps = " + "[" * 900_000)
    assert DEEP in compare("deep.toml").stderr
    assert refused("escape.yaml", 'model: "\\UFFFFFFFF"').startswith("fe: escape.yaml is no YAML")
    assert time.monotonic() - began < 5
