"""What an option of a sweep does, and what can be had at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import pytest
from fe.experiments.names import build_metric
from fe.experiments.records import Record, Share
from fe.experiments.rows import Heading
from fe.experiments.summary import Summary, summarise
from fe.experiments.trends import Trend, trends
from fe.reports.frontier import AXES, HIGHER, Frontier, frontier_plot
from PIL import Image
from rich.console import Console

METRICS = {name: build_metric(name) for name in ("changed", "truth-psnr", "source-ssim")}
COST = Share(1, 2, 2.0, 0.1, 0.1, 1)
CASES = tuple(f"case-{i}" for i in range(8))


def row(label: str, steps: int = 28, control: bool = False) -> Heading:
    return Heading(f"{label.replace(' ', '-')}-{steps}", label, "edit", steps, control, False, (0,))


def records(rows: Sequence[Heading], score: Callable[[str, int], Mapping[str, float]]) -> list[Record]:
    """One record a row and case; `score` tells its scores from the label and the number of the case."""
    return [
        Record(case + one.name, one.name, "edit", case, "", "a", "b", "e", "s", one.steps, 0, COST, dict(score(one.label, i)))
        for one in rows
        for i, case in enumerate(CASES)
    ]  # fmt: skip


def swept(guidances: Sequence[float], n_maxes: Sequence[int]) -> tuple[list[Heading], list[Record]]:
    """More guidance changes more and keeps less, by as much in every case; more steps do nothing."""
    rows = [row(f"flowedit+euler n_max={n} target_guidance={g}") for n in n_maxes for g in guidances]

    def score(label: str, i: int) -> Mapping[str, float]:
        guidance = float(label.rpartition("=")[2])
        return {
            "changed": float(i < guidance),
            "truth-psnr": 20.0 + i - guidance,
            "source-ssim": 0.9 - guidance / 100 + i / 1000,
        }

    return rows, records(rows, score)


def test_a_trend_is_the_paired_difference_over_all_other_options() -> None:
    rows, found = swept((5.5, 1.5, 3.5), (24, 28))
    by_option = {one.option: one for one in trends(rows, found, METRICS)}
    guidance, steps = by_option["target_guidance"], by_option["n_max"]
    assert (guidance.method, guidance.steps, guidance.first, guidance.last) == ("flowedit+euler", 28, "1.5", "5.5")
    psnr = guidance.differences["truth-psnr"]
    assert psnr.mean == pytest.approx(-4.0)
    assert psnr.half == pytest.approx(0.0, abs=1e-9)  # pairing takes the cases' own differences out
    assert psnr.count == len(CASES)
    assert guidance.differences["changed"].mean == pytest.approx((6 - 2) / 8)
    assert guidance.differences["changed"].excludes_zero
    assert steps.differences["truth-psnr"].mean == pytest.approx(0.0)


def test_options_whose_values_are_words_have_no_trend() -> None:
    rows = [row(f"injection+euler strategy={name} inject={n}") for name in ("replace_v", "add_q") for n in (10, 9)]
    (trend,) = trends(rows, records(rows, lambda label, i: {"changed": float("=9" in label)}), METRICS)
    assert (trend.option, trend.first, trend.last) == ("inject", "9", "10")
    assert trend.differences["changed"].mean == -1.0


def test_rows_that_were_not_swept_and_controls_have_no_trend() -> None:
    rows = [row("flowedit+euler"), row("flowedit+euler", 8), row("from noise draw=0", control=True)]
    rows.append(row("from noise draw=1", control=True))
    assert list(trends(rows, records(rows, lambda label, i: {"changed": 1.0}), METRICS)) == []


def test_methods_are_swept_apart() -> None:
    rows = [row(f"{method} n_max={n}", steps) for method in ("a+euler", "b+euler") for n in (1, 2) for steps in (8, 28)]
    found: list[Trend] = list(trends(rows, records(rows, lambda label, i: {"changed": 0.0}), METRICS))
    assert [(one.method, one.steps) for one in found] == [("a+euler", 8), ("a+euler", 28), ("b+euler", 8), ("b+euler", 28)]


PLACES = {"a": (0.0, 30.0), "b": (0.5, 25.0), "c": (0.5, 24.0), "d": (1.0, 20.0), "e": (0.25, 20.0)}


def placed(names: str) -> Summary:
    rows = [row(name) for name in names]
    scores = records(rows, lambda label, i: {"changed": float(i < 8 * PLACES[label][0]), "truth-psnr": PLACES[label][1]})
    return summarise("edit", rows, scores, METRICS)


def test_the_frontier_is_what_no_row_beats_in_both() -> None:
    found = Frontier.of(placed("abcde"))
    assert found is not None
    assert [line.row.label for line in found.best] == ["a", "b", "d"]
    said = "Frontier (asked changed against PSNR to truth, by means): no other row has more of both than "
    assert found.sentence() == f"{said}a with 28 steps, b with 28 steps, d with 28 steps."
    every = Frontier.of(placed("abd"))
    assert every is not None
    assert every.sentence().endswith("by means): every row trades one for the other.")


def test_of_two_rows_with_equal_means_both_stay() -> None:
    PLACES["twin"] = PLACES["b"]
    rows = [row(name) for name in ("a", "b", "twin")]
    scores = records(rows, lambda label, i: {"changed": float(i < 8 * PLACES[label][0]), "truth-psnr": PLACES[label][1]})
    found = Frontier.of(summarise("edit", rows, scores, METRICS))
    assert found is not None
    assert len(found.best) == 3


@pytest.mark.parametrize(
    ("names", "far", "near", "worse"),
    [
        (("clip-t", "lpips"), (0.2, 0.1), (0.3, 0.3), (0.25, 0.4)),
        (("clip-t", "source-ssim"), (0.2, 0.9), (0.3, 0.7), (0.25, 0.6)),
        (("fid", "latent-cost"), (40.0, 0.1), (30.0, 0.3), (35.0, 0.4)),
    ],
)
def test_every_axis_goes_the_way_of_its_metric(
    names: tuple[str, str], far: tuple[float, float], near: tuple[float, float], worse: tuple[float, float]
) -> None:
    metrics = {name: build_metric(name) for name in names}
    places = {"far": far, "near": near, "worse": worse}
    rows = [row(name) for name in places]
    scores = records(rows, lambda label, i: dict(zip(metrics, places[label], strict=True)))
    found = Frontier.of(summarise("edit", rows, scores, metrics))
    assert found is not None
    assert [line.row.label for line in found.best] == ["far", "near"]


def test_every_pair_of_axes_has_its_directions() -> None:
    for name in chain.from_iterable(AXES):
        assert (build_metric(name).higher_is_better is None) == (name in HIGHER)


def test_two_rows_or_no_such_metrics_have_no_frontier(tmp_path: Path) -> None:
    assert Frontier.of(placed("ab")) is None
    rows = [row(name) for name in "abc"]
    alone = summarise("edit", rows, records(rows, lambda label, i: {"source-ssim": 0.5}), METRICS)
    assert Frontier.of(alone) is None
    assert not frontier_plot([placed("ab"), alone], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_plot_is_written(tmp_path: Path) -> None:
    rows, found = swept((1.5, 3.5, 5.5), (24, 28))
    summary = summarise("edit", [*rows, row("no edit", control=True)], found, METRICS)
    assert frontier_plot([summary], tmp_path / "frontier.png")
    with Image.open(tmp_path / "frontier.png") as image:
        assert image.width == 720
        assert image.convert("L").getextrema() == (0, 255)


def test_a_page_shows_trends_and_the_frontier(tmp_path: Path) -> None:
    from fe.experiments.folder import RunFolder
    from fe.experiments.manifest import Manifest
    from fe.experiments.records import Finished
    from fe.experiments.results import read_results
    from fe.reports.page import Page, summed_up
    from fe.reports.table import put

    rows, found = swept((1.5, 3.5, 5.5), (24, 28))
    manifest = Manifest("plan", {}, tuple(rows), CASES, {"edit": tuple(METRICS)}, len(found), True, True, "cpu")
    with RunFolder.open(tmp_path / "run", manifest) as folder:
        folder.keep([Finished(record, None) for record in found])
    (results,) = read_results([tmp_path / "run"])
    page, file = Page.of(results), io.StringIO()
    put(Console(width=110, file=file, highlight=False), page.tables)
    lines = file.getvalue().splitlines()
    (trend,) = [line for line in lines if "target_guidance" in line and "1.5" in line and "flowedit+euler (28)" in line]
    assert "-4.00 ±0.00" in trend
    assert "+50" in trend
    assert "Frontier (asked changed against PSNR to truth, by means)" in page.said
    assert "frontier.png" in list(summed_up(results, tmp_path))
