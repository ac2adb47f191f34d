"""What ships: the pipeline and the judge load from the package, and judge and codec keep their promised figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fe.scenes import evaluate
from fe.scenes.judge import JUDGE, Judge, Reading
from fe.scenes.network import WEIGHTS, load_pipeline
from fe.scenes.shares import Share

torch.set_num_threads(1)

PICTURES = 600


@pytest.fixture(scope="module")
def figures() -> evaluate.Figures:
    return evaluate.evaluate(load_pipeline().vae, Judge.load(), PICTURES)


def test_the_judge_reads_drawn_pictures(figures: evaluate.Figures) -> None:
    assert all(share.n == PICTURES and share.share >= 0.99 for share in figures.drawn.values()), figures.drawn


def test_the_judge_reads_round_trips(figures: evaluate.Figures) -> None:
    assert all(share.share >= 0.97 for share in figures.round_trip.values()), figures.round_trip


def test_the_codec_keeps_30_db(figures: evaluate.Figures) -> None:
    assert figures.psnr - figures.psnr_half_width >= 30.0


def test_readings_are_names_and_do_not_depend_on_the_batch() -> None:
    judge = Judge.load()
    pictures, truth = evaluate.split_pictures(6, "development")
    assert torch.equal(judge.indices(pictures), torch.cat([judge.indices(picture[None]) for picture in pictures]))
    readings = judge.read(pictures)
    assert all(isinstance(reading, Reading) for reading in readings)
    assert len(readings) == len(truth)
    assert judge.read(pictures[:0]) == []


def test_the_judge_names_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got \(1, 3, 32, 32\)"):
        Judge.load().read(torch.zeros(1, 3, 32, 32))
    with pytest.raises(FileNotFoundError, match="train_judge"):
        Judge.load(tmp_path)


def test_files_are_small_safetensors_and_text() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert JUDGE / "judge.safetensors" in files
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert max(path.stat().st_size for path in files) <= 15 * 2**20
    assert sum(path.stat().st_size for path in files) <= 25 * 10**6


def test_shares_have_wilson_intervals() -> None:
    low, high = Share(95, 100).interval
    assert low == pytest.approx(0.8882, abs=1e-4)
    assert high == pytest.approx(0.9785, abs=1e-4)
    assert Share(10, 10).interval[1] == pytest.approx(1.0)


def test_the_command_prints_its_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert evaluate.main(["--pictures", "50", "--captions", "2", "--flow", "2", "--words", "2"]) == 0
    printed = capsys.readouterr().out
    assert all(part in printed for part in ("codec PSNR", "background", "swapped caption", "path over chord", "wrong word"))
    with pytest.raises(SystemExit) as refused:
        evaluate.main(["--words", "1"])
    assert refused.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--judge", str(tmp_path)])
    assert stopped.value.code == 2
