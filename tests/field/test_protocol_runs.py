"""Protocols end to end through `fe compare --protocol`, on small sets and small models, and for real where no weights are
needed."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fe.cases.pictures import read
from fe.cli.main import main
from fe.experiments.protocols import PROTOCOLS
from fe.experiments.records import picture_name, read_records
from fe.experiments.rows import Heading
from fe.experiments.sets import References, references
from fe.metrics.pixels import psnr

APART = "Published, measured by others: not to be mixed with the rows above"
CIRCLE, SQUARE = "a large red circle", "a small blue square"
"""What the small model understands."""


def fe(*words: str | Path) -> Result:
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done


def follow(name: str, out: Path, *words: str | Path) -> str:
    """What `fe compare` shows of a protocol in a file, which is what `fe report` shows of the folder alone."""
    done = fe("compare", "--protocol", name, "--out", out, "--device", "cpu", *words)
    text = (out / "table.txt").read_text(encoding="utf-8")
    shown = out.parent / f"{out.name}-again"
    fe("report", out, "--out", shown)
    assert (shown / "table.txt").read_text(encoding="utf-8") == text
    assert "Traceback" not in done.output
    return text


def ours(text: str) -> str:
    """The page before what others printed."""
    return text.partition("\nProtocol ")[0]


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pretrained network can be had."""
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "nothing"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nothing"))


@pytest.fixture
def small_pie_bench(pie_bench: Path) -> Path:
    """PIE-Bench with prompts that the small model understands, still with brackets."""
    path = pie_bench / "mapping_file.json"
    listed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for entry in listed.values():
        entry |= {"original_prompt": "a large [red] circle", "editing_prompt": "a large [blue] circle"}
    path.write_text(json.dumps(listed), encoding="utf-8")
    return pie_bench


def small_flowedit(folder: Path) -> Path:
    """FlowEdit's set with prompts that the small model understands, in its own layout."""
    path = folder / "flowedit.yaml"
    text = re.sub(r"(?<=source_prompt: ).*?(?=\s+target_prompts)", CIRCLE, path.read_text(encoding="utf-8"), flags=re.DOTALL)
    path.write_text(re.sub(r"(?<= - )[A-Z].*", SQUARE, text), encoding="utf-8")
    return folder


PLAIN = ("--set", "injection.first_block=0", "--no-pictures")
"""The small model has no block 20, where RF-Edit's preset begins."""


def test_pie_bench_from_the_list_to_the_file_of_scores(
    small_pie_bench: Path, tiny_scenes: str, tmp_path: Path, random_trunks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LPIPS has (random) weights here, CLIP and DINO have none."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nothing"))
    out = tmp_path / "out"
    words = ("--model", tiny_scenes, "--cases", f"pie-bench:{small_pie_bench}", *PLAIN)
    text = follow("pie-bench@pnpinversion", out, *words)
    with open(out / "pie-bench.csv", encoding="utf-8", newline="") as file:
        heading, *lines = csv.reader(file)
    listed = list(json.loads((small_pie_bench / "mapping_file.json").read_text(encoding="utf-8")))
    assert [line[0] for line in lines] == listed
    names = ["structure_distance", "psnr_unedit_part", "lpips_unedit_part", "mse_unedit_part", "ssim_unedit_part"]
    names += ["clip_similarity_target_image", "clip_similarity_target_image_edit_part"]
    steps = (28, 15, 15, 8, 28, 15, 15, 28)
    methods = zip(PROTOCOLS["pie-bench@pnpinversion"].methods, steps, strict=True)
    rows = [*(f"{method}-{count}" for method, count in methods), "no-edit", "from-noise"]
    assert heading == ["file_id", *(f"{row}|{name}" for row in rows for name in names)]
    scores = {(line[0], name): text for line in lines for name, text in zip(heading[1:], line[1:], strict=True)}
    assert {scores[key] for key in scores if "structure" in key[1] or "clip" in key[1]} == {""}
    unedited = [name for name in heading if name.endswith("unedit_part")]
    assert {scores["911000000000", name] for name in unedited} == {"nan"}  # a mask over everything
    assert all(math.isfinite(float(scores["000000000000", name])) for name in unedited)
    assert float(scores["000000000000", "no-edit|psnr_unedit_part"]) > 20  # the codec of random weights aside
    assert ours(text).count("n=5") >= len(rows)  # of six cases one is left out of the mean, and it is told
    assert ours(text).count("The column of pie-clip-whole is empty: openai/clip-vit-large-patch14 is not on this machine") == 1
    assert "The column of pie-structure is empty" in ours(text)
    assert "The column of pie-lpips is empty" not in ours(text)
    parted = f"the model is {tiny_scenes} and not flux-dev; injection.first_block is 0."
    assert f"This run departs from the protocol: {parted}" in " ".join(text.split())
    assert "fireflow@paper-8" in ours(text)
    assert text.index(APART) > text.index("Protocol pie-bench@pnpinversion version 1") > text.index("fireflow@paper-8")
    assert "23.03" not in ours(text)
    assert "23.03" in text.partition(APART)[2]
    assert (tmp_path / "out-again" / "pie-bench.csv").read_bytes() == (out / "pie-bench.csv").read_bytes()


def test_a_cell_of_a_protocol_is_reproduced_with_its_masks_and_the_options_of_its_metrics(
    small_pie_bench: Path, tiny_scenes: str, tmp_path: Path, random_trunks: Path
) -> None:
    out = tmp_path / "out"
    words = ("--model", tiny_scenes, "--cases", f"pie-bench:{small_pie_bench}", "--methods", "flowedit+euler", "--steps", "2")
    metrics = ("--metrics", "pie-lpips,pie-ssim,background-mse", "--no-pictures", "--device", "cpu")
    options = ("--set", "pie-ssim.edges=mirrored", "--set", "background-mse.over=background")
    fe("compare", "--protocol", "pie-bench@pnpinversion", *words, *metrics, *options, "--out", out)
    for case in ("000000000000", "911000000000"):  # the second has a mask over everything: its scores are not defined
        done = fe("reproduce", out, f"flowedit+euler-2/{case}")
        assert "identical: 3 scores" in done.output


def test_pie_bench_without_any_weights_is_finished_and_says_so_once(
    small_pie_bench: Path, tiny_scenes: str, tmp_path: Path, no_weights: None
) -> None:
    done = fe(
        *("compare", "--protocol", "pie-bench@pnpinversion", "--model", tiny_scenes, "--device", "cpu"),
        *("--cases", f"pie-bench:{small_pie_bench}", "--methods", "flowedit@flux", "--steps", "2", "--no-pictures"),
        *("--out", tmp_path / "out"),
    )
    assert done.stderr.count("no figures for") == 1
    for name in ("pie-structure", "pie-lpips", "pie-clip-whole", "pie-clip-edited"):
        assert done.stdout.count(f"The column of {name} is empty") == 1
    assert "it has other methods" in " ".join(done.stdout.split())
    records = read_records(tmp_path / "out" / "records.jsonl")
    assert {name for record in records for name in record.scores} == {"pie-psnr", "pie-mse", "pie-ssim"}


def test_flowedits_own_set_with_its_baselines(
    flowedit_set: Path, tiny_scenes: str, tmp_path: Path, random_trunks: Path
) -> None:
    words = ("--model", tiny_scenes, "--cases", f"flowedit:{small_flowedit(flowedit_set)}")
    text = follow("flowedit-own-set", tmp_path / "out", *words, "--steps", "2", *PLAIN)
    assert "(n = 7 cases)" in ours(text)
    for label in ("sdedit@flux", "strength=0.5", "strength=0.75", "inject=2", "inject=5", "flowedit@flux-style"):
        assert label in ours(text)
    (rows,) = [json.loads((tmp_path / "out" / "run.json").read_text())["rows"]]
    assert {row["task"] for row in rows} == {"edit"}
    assert "FlowEdit, SD3, source paraphrased" in text.partition(APART)[2]
    assert not (tmp_path / "out" / "pie-bench.csv").exists()
    style = ("--methods", "flowedit@flux-style", "--set", "flowedit.kinds=style,object", "--steps", "2", "--no-pictures")
    again = follow("flowedit-own-set", tmp_path / "style", *words, *style)
    assert "flowedit.kinds is style,object" in again


def test_the_sweep_of_the_study_gives_all_twelve_rows(tiny_scenes: str, tmp_path: Path, random_trunks: Path) -> None:
    out = tmp_path / "out"
    text = follow("instaflow-sweep", out, "--model", tiny_scenes, "--cases", "scenes:1", "--no-pictures")
    rows = json.loads((out / "run.json").read_text())["rows"]
    swept = [row["label"] for row in rows if not row["control"]]
    assert swept == [
        f"flowedit@2rf n_max={n_max} target_guidance={guidance}"
        for n_max in (19, 21, 23, 25)
        for guidance in (16.5, 18.5, 20.5)
    ]
    assert {row["steps"] for row in rows if not row["control"]} == {25}
    assert "prints three rows, one for each target guidance" in " ".join(text.split())


def test_reconstruction_shows_its_steps_and_no_edits(tiny_scenes: str, tmp_path: Path, random_trunks: Path) -> None:
    out = tmp_path / "out"
    text = follow("reconstruction@fireflow", out, "--model", tiny_scenes, "--cases", "scenes:1", "--no-pictures")
    rows = json.loads((out / "run.json").read_text())["rows"]
    assert [(row["task"], row["label"], row["steps"]) for row in rows] == [
        *(("reconstruct", "euler", steps) for steps in (30, 9)),
        *(("reconstruct", "rf-solver", steps) for steps in (30, 5)),
        *(("reconstruct", "fireflow", steps) for steps in (30, 8)),
        ("reconstruct", "codec", 30),
    ]
    assert set(read_records(out / "records.jsonl")[0].scores) == {"lpips", "ssim", "psnr"}
    assert "Edits" not in ours(text)
    refused = CliRunner().invoke(
        main, ["compare", "--protocol", "reconstruction@fireflow", "--model", tiny_scenes, "--cases", "scenes:1",
               "--metrics", "changed"]
    )  # fmt: skip
    assert refused.exit_code == 2
    assert "none of the metrics changed says anything about the cases scenes in the task reconstruct" in refused.stderr


def test_generation_is_held_against_the_cases_own_pictures(tiny_scenes: str, tmp_path: Path, no_weights: None) -> None:
    out = tmp_path / "out"
    text = follow("generation@fireflow", out, "--model", tiny_scenes, "--cases", "scenes:2")
    records = read_records(out / "records.jsonl")
    nfe = {record.row: record.cost.rows for record in records if record.cost}
    assert nfe == {
        "from-noise+euler-20": 20,
        "from-noise+rf-solver-10": 20,
        "from-noise+fireflow-10": 11,
        "no-edit": 0,
        "codec-of-the-truth": 0,
    }
    assert "The column of fid is empty" in ours(text)
    assert "text to image" in text
    against = str(PROTOCOLS["generation@fireflow"].settings["fid"]["against"])
    headings = [Heading(**row) for row in json.loads((out / "run.json").read_text(encoding="utf-8"))["rows"]]
    for truths in (False, True):  # neither what is drawn nor a truth, but the cases' own pictures
        assert references("fid", against, headings, truths) == References("original", "source")


def test_transport_from_drawn_sources_knows_their_noise(tiny_scenes: str, tmp_path: Path, no_weights: None) -> None:
    """The control with draw 0 starts where the source started: under one prompt it draws the source again."""
    prompts = tmp_path / "pairs.csv"
    prompts.write_text(f"source,target\n{CIRCLE},{CIRCLE}\n{CIRCLE},{SQUARE}\n", encoding="utf-8")
    drawn, model = tmp_path / "drawn", ("--model", tiny_scenes, "--device", "cpu")
    fe("generate", "--prompts", prompts, "--steps", "4", "--guidance", "7", "--out", drawn, *model)
    out = tmp_path / "out"
    text = follow("transport@flowedit-cat-dog", out, *model[:2], "--cases", f"folder:{drawn}", "--steps", "4")
    rows = json.loads((out / "run.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        *("flowedit@sd3-4", "inversion+euler-4", "no-edit", "from-noise-draw=0", "from-noise-draw=1")
    ]
    against = PROTOCOLS["transport@flowedit-cat-dog"].settings["fid"]["against"]
    headings = [Heading(**row) for row in rows]
    assert references("fid", against, headings, truths=False) == References("row", "from-noise-draw=1")
    groups = ("source", "from-noise-draw=0", "from-noise-draw=1")
    source, again, other = (read(out / picture_name(group, "0000")).pixels for group in groups)
    assert psnr(again, source) > 40
    assert psnr(other, source) < 35
    assert "0.615 of the latent cost" in " ".join(text.split())


def test_guidance_conflict_shows_what_guidance_does_to_inversion(tmp_path: Path) -> None:
    text = follow("guidance-conflict", tmp_path / "out", "--cases", "scenes:2", "--steps", "6", "--no-pictures")
    assert [f"source_guidance={value}" in ours(text) for value in ("1", "1.5", "2", "3", "5", "7")] == [True] * 6
    assert "of the cases it takes 2" in text
    assert "No table is known." in text


def test_the_mixture_shows_what_the_paper_says(tmp_path: Path) -> None:
    """For real, on fewer clouds: the figures of docs/mixture.md, found in the records."""
    out = tmp_path / "out"
    text = follow("mixture@flowedit", out, "--cases", "mixture:4")
    means: dict[str, list[float]] = {}
    for record in read_records(out / "records.jsonl"):
        means.setdefault(record.row, []).append(record.scores["transport-cost"])
        if record.row == "inversion+euler-100":
            assert record.scores["wrong-mode"] == pytest.approx(0.264, abs=0.04)
        elif record.row == "flowedit+euler-100":
            assert record.scores["wrong-mode"] < 0.01
    cost = {row: sum(found) / len(found) for row, found in means.items()}
    assert cost["inversion+euler-100"] == pytest.approx(262.7, abs=15)
    assert cost["flowedit+euler-100"] == pytest.approx(112.1, abs=2)
    assert "Protocol mixture@flowedit version 1" in text
    assert "This run departs from the protocol: of the cases it takes 4." in text
    assert 'its cost is "less than twice as low"' in " ".join(text.split())
    assert APART not in text  # nothing was printed that could be laid beside
    assert json.loads((out / "run.json").read_text())["comparison"]["protocol"] == "mixture@flowedit version 1"
