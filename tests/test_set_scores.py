"""Metrics of whole rows: figures and intervals of sets, from what run folders hold; kept while the records are the same."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from click.testing import CliRunner, Result
from fe.cases.pictures import read, write
from fe.cli.main import main
from fe.experiments.compare import carry_out, open_folder, prepare
from fe.experiments.plan import planned
from fe.experiments.records import picture_name
from fe.experiments.results import Results, read_results
from fe.experiments.rows import Heading
from fe.experiments.run import Effort
from fe.experiments.set_scores import read_sets
from fe.experiments.sets import References, Sample, completed, estimate, references
from fe.experiments.words import Asked, CaseChoice, Method
from fe.metrics.base import SetMetric
from fe.metrics.frechet import frechet, kernel_distance
from fe.metrics.scenes_sets import JudgeFrechet
from fe.models.base import Setup
from fe.reports.page import Page
from fe.reports.reading import reading
from torch import Tensor

CASES, SEEDS = 4, "0,1"
WORDS = ("--cases", f"scenes:{CASES}", "--steps", "2", "--device", "cpu", "--seeds", SEEDS)
METHODS = ("--methods", "flowedit+euler,inversion+euler", "--metrics", "judge-frechet,changed")


@dataclass(frozen=True)
class Plain(SetMetric):
    """A distance of plain features."""

    label = "plain"

    def features(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1).double()

    def distance(self, features: Tensor, references: Tensor) -> float:
        return frechet(features, references)


class Kernel(Plain):
    def distance(self, features: Tensor, references: Tensor) -> float:
        return kernel_distance(features, references)


def fe(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def done(*words: str | Path) -> Result:
    result = fe(*words)
    assert result.exit_code == 0, result.output
    return result


class Runs(NamedTuple):
    model: str
    whole: Path
    parts: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_scenes: str) -> Runs:
    """One comparison, once as a whole and once in two shards. Not to be changed."""
    folder = tmp_path_factory.mktemp("sets")
    done("compare", "--model", tiny_scenes, *WORDS, *METHODS, "--out", folder / "whole", "--batch", "2")
    for number in (1, 2):
        done("compare", "--model", tiny_scenes, *WORDS, *METHODS, "--out", folder / "parts", "--shard", f"{number}/2")
    return Runs(tiny_scenes, folder / "whole", folder / "parts")


def results_of(*folders: Path) -> Results:
    (results,) = read_results(folders)
    return results


def figures(results: Results) -> dict[str, float]:
    return {row: named["judge-frechet"].mean for row, named in results.sets.items()}


def features_of(folder: Path, group: str, names: Sequence[str]) -> Tensor:
    return JudgeFrechet().features(torch.stack([read(folder / picture_name(group, name)).pixels for name in names]))


def test_a_figure_is_the_mean_over_seeds_of_the_distance_of_all_pictures_from_all_truths(runs: Runs) -> None:
    results = results_of(runs.whole)
    ids = results.manifest.cases
    truths = features_of(runs.whole, "truth", ids)
    by_hand = [
        frechet(features_of(runs.whole, "flowedit+euler-2", [f"{case}-seed{seed}" for case in ids]), truths) for seed in (0, 1)
    ]
    found = results.sets["flowedit+euler-2"]["judge-frechet"]
    assert found.mean == pytest.approx(sum(by_hand) / 2, rel=1e-6)
    assert (found.count, found.missing) == (2 * CASES, 0)
    assert found.low < found.mean < found.high
    assert results.sets["inversion+euler-2"]["judge-frechet"].count == CASES  # it draws no noise
    assert set(results.sets) == {row.name for row in results.manifest.rows}  # controls have figures too
    assert figures(results)["codec-of-the-truth"] < 0.01 * figures(results)["no-edit"]


def test_the_table_explains_the_interval_once_and_has_no_differences_there(runs: Runs) -> None:
    told = done("report", runs.whole).stdout
    assert "judge Frechet" in told
    assert told.count("bootstrap over cases") == 1
    summary = results_of(runs.whole).summaries[-1]
    line = next(line for line in summary.lines if line.row.name == "flowedit+euler-2")
    low, high = (f"{end:.1f}" for end in (line.scores["judge-frechet"].low, line.scores["judge-frechet"].high))
    assert f"[{low}, {high}]" in told
    assert all(line.differences["judge-frechet"].count == 0 for line in summary.lines)
    assert "has the lowest judge Frechet" in told
    without = Page.of(replace(results_of(runs.whole), sets={}, unset={"judge-frechet": "gone"}))
    assert "The column of judge-frechet is empty: gone" in without.missing


def test_shards_are_one_set_which_only_their_report_knows(runs: Runs) -> None:
    shard = runs.parts / "shard-1-of-2"
    assert not (shard / "sets.json").exists()
    assert "There is no column of judge-frechet yet" in (shard / "table.txt").read_text()
    before = sorted(path for path in runs.parts.rglob("*"))
    told = done("report", runs.parts).stdout
    assert "There is no column" not in told
    assert sorted(path for path in runs.parts.rglob("*")) == before  # a report writes nothing there
    joined = results_of(runs.parts)
    joined = completed(joined, joined.sets_to_come)
    assert figures(joined) == pytest.approx(figures(results_of(runs.whole)), rel=1e-3)
    alone = completed(results_of(shard), results_of(shard).sets_to_come)
    assert alone.sets["flowedit+euler-2"]["judge-frechet"].count == CASES  # two of four cases, two seeds


def test_figures_are_made_again_when_a_record_has_changed(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs.whole, tmp_path / "run")
    kept = json.loads((run / "sets.json").read_text())
    kept["rows"]["no-edit"]["judge-frechet"]["mean"] = 12345.6
    (run / "sets.json").write_text(json.dumps(kept))
    assert "12345.6" in done("report", run).stdout  # what is written down is believed
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    lost = json.loads(lines[0])
    (run / "records.jsonl").write_text("".join(lines[1:]))
    assert "12345.6" not in done("report", run).stdout
    assert "12345.6" in (run / "sets.json").read_text()  # a report writes nothing
    done("compare", "--model", runs.model, *WORDS, *METHODS, "--out", run, "--batch", "2")
    again = results_of(run)
    assert figures(again) == pytest.approx(figures(results_of(runs.whole)), rel=1e-6)
    assert json.loads((run / "sets.json").read_text())["of"] != kept["of"]  # the cell that ran again took other seconds
    assert lost["case"] in again.manifest.cases


def test_a_finished_run_that_is_given_again_keeps_its_figures(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs.whole, tmp_path / "run")
    before = (run / "sets.json").stat().st_mtime_ns, (run / "sets.json").read_bytes()
    done("compare", "--model", runs.model, *WORDS, *METHODS, "--out", run, "--batch", "2")
    assert ((run / "sets.json").stat().st_mtime_ns, (run / "sets.json").read_bytes()) == before
    (run / "sets.json").write_text("{")
    done("compare", "--model", runs.model, *WORDS, *METHODS, "--out", run, "--batch", "2")
    assert (run / "sets.json").read_bytes() == before[1]  # draws are the same every time
    done("compare", "--model", runs.model, *WORDS, "--methods", "flowedit+euler", "--out", run, "--overwrite")
    assert not (run / "sets.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2, "of": "", "rows": {}}', "\udcff"])
def test_what_cannot_be_understood_counts_as_nothing(runs: Runs, tmp_path: Path, text: str) -> None:
    (tmp_path / "sets.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_sets(tmp_path, results_of(runs.whole).records) == {}


def test_pictures_and_cells_that_are_not_there_are_counted(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs.whole, tmp_path / "run")
    (run / "sets.json").unlink()
    text = (run / "records.jsonl").read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(text) if '"row": "no-edit"' in line)
    text[place] = json.dumps({**json.loads(text[place]), "error": "node lost", "picture": None, "cost": None}) + "\n"
    (run / "records.jsonl").write_text("".join(text))
    next((run / "pictures" / "flowedit+euler-2").glob("*.png")).unlink()
    results = results_of(run)
    results = completed(results, results.sets_to_come)
    for row, count in (("no-edit", CASES - 1), ("flowedit+euler-2", 2 * CASES - 1)):
        found = results.sets[row]["judge-frechet"]
        assert (found.count, found.missing) == (count, 1)


def test_the_rows_own_pictures_are_no_reference_for_it(runs: Runs) -> None:
    results = completed(results_of(runs.whole), {"judge-frechet": JudgeFrechet("flowedit+euler-2")})
    own, other = (results.sets[row]["judge-frechet"] for row in ("flowedit+euler-2", "inversion+euler-2"))
    assert math.isnan(own.mean)
    assert (own.count, own.missing) == (0, 2 * CASES)
    ids = results.manifest.cases
    theirs = features_of(runs.whole, "flowedit+euler-2", [f"{case}-seed{seed}" for case in ids for seed in (0, 1)])
    assert other.mean == pytest.approx(frechet(features_of(runs.whole, "inversion+euler-2", ids), theirs), rel=1e-6)
    page = Page.of(results)
    assert "nan" not in page.text()
    assert reading(results.summaries[-1]) == (
        f"Edits: inversion+euler has the lowest judge Frechet, {other.mean:.1f} at 4 evaluations a picture."
    )


def test_the_best_of_several_is_not_held_against_a_first_row_without_a_figure(runs: Runs) -> None:
    results = completed(results_of(runs.whole), {"judge-frechet": JudgeFrechet("flowedit+euler-2")})
    summary = results.summaries[-1]
    second = summary.methods[1]
    third = replace(second, row=replace(second.row, name="third", label="third"))
    said = reading(replace(summary, lines=(*summary.lines, third)))
    assert said.startswith("Edits: inversion+euler has the lowest judge Frechet")
    assert said.endswith("at 4 evaluations a picture.")


def test_a_folder_of_pictures_is_a_set_of_its_own(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.whole / "pictures" / "truth", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "notes.txt").write_text("no picture")
    results = completed(results_of(runs.whole), {"judge-frechet": JudgeFrechet(str(tmp_path / "elsewhere"))})
    paired = results_of(runs.whole)
    assert figures(results) == pytest.approx(figures(paired), rel=1e-9)
    apart, together = (one.sets["codec-of-the-truth"]["judge-frechet"] for one in (results, paired))
    assert apart.high > 2 * together.high  # the same pictures drawn together stay near each other
    gone = completed(results_of(runs.whole), {"judge-frechet": JudgeFrechet(str(tmp_path / "gone"))})
    assert "or a folder of pictures" in gone.unset["judge-frechet"]
    write(torch.zeros(3, 8, 8), tmp_path / "elsewhere" / "zz.png")
    strange = completed(results_of(runs.whole), {"judge-frechet": JudgeFrechet(str(tmp_path / "elsewhere"))})
    assert "the judge reads pictures of shape" in strange.unset["judge-frechet"]


def heading(name: str, control: bool = False) -> Heading:
    return Heading(name, name, "edit", 2, control, False, (0,))


ROWS = [heading("flowedit+euler-2"), heading("no-edit", True), heading("from-noise-draw=1", True)]


@pytest.mark.parametrize(
    ("against", "truths", "found"),
    [
        ("auto", True, References("original", "truth")),
        ("auto", False, References("row", "from-noise-draw=1")),
        ("truth", True, References("original", "truth")),
        ("source", False, References("original", "source")),
        ("flowedit+euler-2", True, References("row", "flowedit+euler-2")),
        ("from-noise draw=1", True, References("row", "from-noise-draw=1")),
    ],
)
def test_what_references_are_called(against: str, truths: bool, found: References) -> None:
    assert references("fid", against, ROWS, truths) == found


def test_a_folder_is_a_reference_where_it_has_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fid.against must be .* or a folder of pictures"):
        references("fid", str(tmp_path), ROWS, True)
    write(torch.zeros(3, 8, 8), tmp_path / "one.PNG")
    assert references("fid", str(tmp_path), ROWS, True) == References("folder", str(tmp_path))


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("auto", "auto, which finds neither truths nor a row from noise"),
        ("truth", "truth, which no case has"),
        ("fd", "got 'fd'"),
    ],
)
def test_references_that_are_not_there_are_refused(against: str, said: str) -> None:
    with pytest.raises(
        ValueError, match=r"must be auto, truth, source, a row of this comparison \(flowedit\+euler-2\)"
    ) as caught:
        references("fid", against, ROWS[:1], False)
    assert said in str(caught.value)


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, tiny_scenes: str) -> None:
    words = ("compare", "--model", tiny_scenes, *WORDS, *METHODS, "--out", tmp_path / "out")
    for more, said in (
        (["--no-pictures"], "judge-frechet looks at the pictures that a run keeps; leave out --no-pictures"),
        (["--set", "judge-frechet.against=nowhere"], "judge-frechet.against must be auto, truth, source, a row"),
    ):
        result = fe(*words, *more)
        assert result.exit_code == 2
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_python_refuses_a_set_without_pictures_too(tmp_path: Path, tiny_scenes: str) -> None:
    asked = Asked(methods=(Method("flowedit", "euler"),), steps=(2,), cases=CaseChoice("scenes", 2), metrics=("judge-frechet",))
    plan, _ = planned(asked, tiny_scenes, Setup(), {})
    prepared = prepare(plan)
    with (
        open_folder(prepared, tmp_path / "run", False) as folder,
        pytest.raises(ValueError, match="looks at the pictures that a run keeps"),
    ):
        carry_out(prepared, folder, lambda done, total, failed: None, Effort(pictures=False))


def gaussians(count: int, dimensions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    first, second = (torch.randn(count, dimensions, generator=generator, dtype=torch.float64) for _ in range(2))
    return first, second * 1.3 + 0.7


@pytest.mark.parametrize(("metric", "count", "dimensions"), [(Plain(), 40, 4), (Plain(), 20, 30), (Kernel(), 40, 4)])
def test_the_interval_holds_what_such_sets_come_to_on_average(metric: SetMetric, count: int, dimensions: int) -> None:
    generator = torch.Generator().manual_seed(0)
    names = [str(i) for i in range(count)]
    average = sum(metric.distance(*gaussians(count, dimensions, generator)) for _ in range(300)) / 300
    held, times, whole = 0, 40, 0
    for _ in range(times):
        ours, theirs = gaussians(count, dimensions, generator)
        found = estimate(metric, [Sample(ours, names)], Sample(theirs, names, paired=False))
        held += found.low <= average <= found.high
        whole += found.low < found.mean < found.high
    assert whole == times
    assert held >= 0.85 * times


def test_pictures_of_a_case_are_drawn_together() -> None:
    generator = torch.Generator().manual_seed(0)
    features, references = gaussians(12, 3, generator)
    names = [str(i) for i in range(12)]
    once, twice = (estimate(Plain(), [Sample(features, names)] * seeds, Sample(references, names)) for seeds in (1, 2))
    assert (twice.mean, twice.low, twice.high) == pytest.approx((once.mean, once.low, once.high), rel=1e-12)
    near = references + 1e-3 * features
    together = estimate(Plain(), [Sample(near, names)], Sample(references, names))
    apart = estimate(Plain(), [Sample(near, names)], Sample(references, names, paired=False))
    assert together.high < 1e-4 < apart.high


def test_too_few_pictures_make_no_figure_and_one_case_no_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    features, references = gaussians(6, 3, generator)
    names = [str(i) for i in range(6)]
    alone = estimate(Plain(), [Sample(features[:1], names[:1])], Sample(references, names), missing=2)
    assert (math.isnan(alone.mean), alone.count, alone.missing) == (True, 0, 3)
    nothing = estimate(Plain(), [], Sample(references, names), missing=0)
    assert (nothing.count, nothing.missing) == (0, 0)
    one_case = estimate(Plain(), [Sample(features, ["0"] * 6)], Sample(references, names))
    assert one_case.mean == pytest.approx(frechet(features, references))
    assert math.isnan(one_case.low)
