"""Tables and readings as the text that a user sees."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from fe.experiments.rows import Heading
from fe.experiments.statistics import Estimate, mean_interval, paired_difference
from fe.experiments.summary import Line, Summary
from fe.metrics.pie_bench import PieMSE
from fe.metrics.pixels import RMSE, SourceSSIM
from fe.metrics.scenes import Changed, Kept, TruthPSNR
from fe.reports.kinds import kinds_table
from fe.reports.progress import watched
from fe.reports.reading import reading
from fe.reports.table import difference, notes, put, score, table
from rich.console import Console
from rich.table import Table

METRICS = {"truth-psnr": TruthPSNR(), "changed": Changed(), "kept": Kept(), "source-ssim": SourceSSIM()}
NONE = Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
BASE = {"truth-psnr": 22.86, "changed": 0.38, "kept": 0.94, "source-ssim": 0.902}
SURE = {"truth-psnr": 0.4, "changed": 0.18, "kept": 0.1, "source-ssim": 0.01}


def estimate(mean: float, half: float, count: int = 24) -> Estimate:
    return Estimate(mean, mean - half, mean + half, count, 0)


def line(label: str, nfe: float, shift: float = 0.0, control: bool = False, failed: int = 0) -> Line:
    row = Heading(label, label, "edit", 28, control, False, (0,))
    scores = {name: estimate(BASE[name] + shift, SURE[name]) for name in METRICS}
    differences = {name: estimate(shift, SURE[name] / 2) for name in METRICS}
    return Line(row, scores, differences, nfe, nfe / 2, 0.5123, 2**30, 24 - failed, failed)


def summary(*lines: Line) -> Summary:
    return Summary("edit", METRICS, lines, 24)


def text(one: Summary, width: int = 120) -> list[str]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    with console.capture() as captured:
        put(console, [table(one)])
    return captured.get().splitlines()


WHOLE = summary(line("injection+fireflow", 18.0), line("flowedit+euler", 48.0, 0.05), line("no edit", 0.0, control=True))


def test_a_table_of_edits_fits_120_columns_uncut() -> None:
    lines = text(WHOLE)
    assert max(len(one.rstrip()) for one in lines) <= 116
    assert not any("…" in one for one in lines)
    assert "Edits (n = 24 cases)" in lines[0]
    (first,) = [one for one in lines if "injection+fireflow" in one]
    values = "injection+fireflow 28 18 9 22.86 ±0.40 38 [20, 56] 94 [84, 104] 0.902 ±0.010 0.51 1.00"
    assert " ".join(first.split()) == values


@pytest.mark.parametrize("width", [100, 80])
def test_a_table_is_whole_on_narrower_screens(width: int) -> None:
    lines = text(WHOLE, width)
    assert max(map(len, lines)) <= width
    assert not any("…" in one for one in lines)
    assert {"22.86", "±0.40", "+0.050", "±0.005", "104]", "injection+fireflow", "1.00"} <= set(" ".join(lines).split())


@pytest.mark.parametrize("width", [120, 100, 80, 60])
def test_no_word_or_number_is_broken(width: int) -> None:
    """As rich would break those of wide columns before it folds others between words."""
    long = replace(WHOLE, metrics={**METRICS, "fine": PieMSE()})
    fine = {"fine": estimate(0.000074, 0.000024)}
    lines = (replace(one, scores={**one.scores, **fine}, differences={**one.differences, **fine}) for one in long.lines)
    long = replace(long, lines=tuple(lines))
    words = set(" ".join(text(long, 300)).split())
    assert {"0.000074", "±0.000024", "+0.000074", "unedited"} <= words
    assert set(" ".join(text(long, width)).replace("─", "").split()) == {word for word in words if "─" not in word}


def test_a_table_that_was_printed_narrow_is_whole_on_a_wide_screen_again() -> None:
    shown, wide = table(WHOLE), text(WHOLE, 120)
    put(Console(width=60, file=io.StringIO()), [shown])
    console = Console(width=120, file=io.StringIO(), highlight=False)
    with console.capture() as captured:
        put(console, [shown])
    assert captured.get().splitlines() == wide


def test_columns_that_do_not_fold_are_not_cut() -> None:
    """25.01 cut to 25 would be another number."""
    shown = Table("method", box=None)
    for heading in ("CLIP\nwhole", "PSNR"):
        shown.add_column(heading, no_wrap=True)
    shown.add_row("P2P, DDIM", "25.01 of 100", "17.87")
    console = Console(width=12, file=io.StringIO(), highlight=False)
    with console.capture() as captured:
        put(console, [shown])
    assert "25.01 of 100" in captured.get()
    assert "17.87" in captured.get()


def test_a_table_goes_over_the_edge_rather_than_lose_a_digit() -> None:
    lines = text(WHOLE, width=40)
    assert not any("…" in one for one in lines)
    assert {"22.86", "±0.40", "injection+fireflow", "0.51"} <= set(" ".join(lines).split())
    assert max(map(len, lines)) < 80


def test_differences_stand_under_their_values_and_are_marked_where_clear() -> None:
    lines = text(WHOLE)
    under = lines[next(i for i, one in enumerate(lines) if "flowedit+euler" in one) + 1]
    assert under.split() == ["+0.05", "±0.20", "+5", "±9", "+5", "±5", "+0.050", "±0.005", "◆"]
    after = lines[next(i for i, one in enumerate(lines) if "injection+fireflow" in one) + 1]
    assert "flowedit+euler" in after  # the first row differs from nothing


def test_a_row_of_failures_only_takes_one_line() -> None:
    nothing = dict.fromkeys(METRICS, NONE)
    lost = replace(line("fireflow", 50.0, failed=24), scores=nothing, differences=nothing, nfe=None, calls=None, seconds=None)
    lines = text(summary(line("euler", 48.0), lost, line("heun", 48.0)))
    place = next(i for i, one in enumerate(lines) if "fireflow" in one)
    assert "heun" in lines[place + 1]


def test_controls_stand_apart_and_failures_only_where_there_are_some() -> None:
    lines = text(WHOLE)
    control = next(i for i, one in enumerate(lines) if "no edit" in one)
    assert lines[control - 1].strip() == ""
    assert "failed" not in "".join(lines)
    failing = text(summary(line("a", 1.0), line("b", 1.0, failed=3)))
    assert any("failed" in one for one in failing)


def test_marks_tell_better_from_worse() -> None:
    assert difference(estimate(0.42, 0.21), TruthPSNR()) == "+0.42 ±0.21 ▲"
    assert difference(estimate(0.42, 0.21), RMSE()) == "+0.42 ±0.21 ▼"
    assert difference(estimate(-0.42, 0.21), RMSE()) == "-0.42 ±0.21 ▲"
    assert difference(estimate(0.2, 0.21), RMSE()) == "+0.20 ±0.21"
    assert difference(NONE, RMSE()) == ""


def test_fewer_cases_than_the_title_says_are_counted() -> None:
    assert score(estimate(21.3, 0.45, 23), TruthPSNR(), 24) == "21.30 ±0.45 n=23"
    assert score(NONE, TruthPSNR(), 24) == ""
    assert score(mean_interval([math.nan]), TruthPSNR(), 24) == "-"
    assert score(mean_interval([20.0]), TruthPSNR(), 1) == "20.00"


def test_the_reading_names_the_best_row_and_its_cost() -> None:
    tied = reading(summary(line("euler", 48.0), line("fireflow", 50.0, 0.1)))
    assert tied == (
        "Edits: fireflow has the highest PSNR to truth, 22.96 dB at 50 evaluations a picture, against 22.86 dB at 48 of euler; "
        "the paired difference is not clear of zero (95 %, n = 24). It also has "
        "asked changed 48 % against 38 %, others kept 104 % against 94 %, "
        "SSIM to source 1.002 against 0.902."
    )
    assert "the paired difference is clear of zero" in reading(summary(line("euler", 48.0), line("fireflow", 50.0, 0.3)))
    assert reading(summary(line("euler", 48.0), line("fireflow", 50.0, -0.3), line("no edit", 0.0, 9.0, control=True))) == (
        "Edits: euler has the highest PSNR to truth, 22.86 dB at 48 evaluations a picture; "
        "every other row is behind it by more than its 95 % interval."
    )
    assert "the difference from fireflow is not clear of zero" in reading(
        summary(line("euler", 48.0), line("fireflow", 50.0, -0.1), line("alf", 50.0, -0.3))
    )


def test_the_reading_says_what_is_worse() -> None:
    best = line("fireflow", 50.0, 0.3)
    best = replace(best, differences={**best.differences, "changed": estimate(-0.2, 0.1)})
    said = reading(summary(line("euler", 48.0), best))
    assert "asked changed 68 % against 38 % (worse), others kept 124 % against 94 %, SSIM to source" in said


def test_rows_of_one_label_are_told_apart_by_their_steps() -> None:
    eight = line("euler", 16.0, 0.5)
    eight = replace(eight, row=replace(eight.row, steps=8))
    assert reading(summary(line("euler", 48.0), eight)).startswith("Edits: euler with 8 steps has")


def test_of_a_single_case_no_difference_is_said_to_be_clear_or_not() -> None:
    for shift in (0.3, -0.3):
        other = line("fireflow", 50.0, shift)
        unsure = {name: Estimate(shift, math.nan, math.nan, 1, 0) for name in METRICS}
        said = reading(summary(line("euler", 48.0), replace(other, differences=unsure)))
        assert said.startswith(f"Edits: {'fireflow' if shift > 0 else 'euler'} has the highest PSNR to truth")
        assert "clear" not in said
        assert "interval" not in said


def test_nothing_is_read_where_nothing_came_out() -> None:
    nothing = Line(
        line("a", 1.0).row, dict.fromkeys(METRICS, NONE), dict.fromkeys(METRICS, NONE), None, None, None, None, 0, 24
    )
    assert reading(summary(nothing)) == ""
    assert any("a" in one and "24" in one for one in text(summary(nothing)))


def test_notes_explain_marks_only_where_there_are_some() -> None:
    assert "▲" in notes([WHOLE], on_gpu=False)
    assert "▲" not in notes([summary(line("euler", 1.0))], on_gpu=True)
    assert "on the GPU" in notes([WHOLE], on_gpu=True)


def test_progress_away_from_a_terminal_is_plain_lines() -> None:
    out = io.StringIO()
    with watched(Console(file=out)) as watch:
        for done in range(5):
            watch(done, 4, 1 if done > 2 else 0)
    lines = out.getvalue().splitlines()
    assert lines[0] == "0 of 4 cells"
    assert lines[-1].startswith("4 of 4 cells")
    assert lines[-1].endswith("1 failed")
    assert len(lines) == 2  # no more than one in ten seconds


def test_progress_on_a_terminal_is_a_bar_with_failures() -> None:
    out = io.StringIO()
    with watched(Console(file=out, force_terminal=True, width=120)) as watch:
        watch(0, 4, 0)
        watch(4, 4, 2)
    assert "4/4" in out.getvalue()
    assert "2 failed" in out.getvalue()


def test_a_paired_difference_needs_pairs() -> None:
    assert paired_difference({"a": 1.0}, {"b": 1.0}).count == 0
    assert difference(paired_difference({"a": 1.0}, {"b": 1.0}), RMSE()) == ""


def test_kinds_stand_apart_where_a_mean_would_hide_them() -> None:
    """A method that always changes colours and never sizes."""
    lines = (line("flowedit+euler", 48.0), line("no edit", 0.0, control=True))
    always, never = (
        replace(summary(*(replace(one, scores={**one.scores, "changed": estimate(mean, 0.1, 12)}) for one in lines)), cases=12)
        for mean in (1.0, 0.0)
    )
    whole = replace(summary(*lines), kinds={"[bold]colour": always, "[/red]size": never})
    shown = kinds_table(whole)
    assert shown is not None
    console = Console(width=100, file=io.StringIO(), highlight=False)
    with console.capture() as captured:
        console.print(shown)
    printed = captured.get()
    assert "asked changed / others kept, %" in printed
    assert " ".join(next(row for row in printed.splitlines() if "flowedit" in row).split()).startswith("flowedit+euler 100 [90")
    assert "0 [-10, 10]" in printed
    assert printed.count("n = 12") == 2
    assert {"[bold]colour", "[/red]size"} <= set(printed.split())  # a data set names its kinds as it likes
    assert "no edit" not in printed
    assert kinds_table(summary(*lines)) is None
