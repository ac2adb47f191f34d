"""The training: a stopped and resumed run equals an uninterrupted one, distillation included, and the command exports."""

from __future__ import annotations

import csv
import math
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from fe.scenes import train, trainer
from fe.scenes.attributes import KINDS
from fe.scenes.codec import PatchCodec
from fe.scenes.curve import Examination
from fe.scenes.network import Shape, build_codec, build_network, load_pipeline
from fe.scenes.objective import Batch, Drawer, Objective
from fe.scenes.trainer import DISTILLED, Settings, Trainer, learning_rate

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype")

TINY = Settings(shape=Shape(32, 1, 1, 32), batch=4)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return build_codec(pictures=200)


@pytest.fixture(autouse=True)
def _quick_codec(codec: PatchCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "build_codec", lambda _: codec)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = Trainer(TINY, CPU)
    losses = [whole.step(10 - done) for done in range(10)]
    assert whole.teacher is not None
    assert whole.progress == pytest.approx(1.0)
    for stop in (3, 9):  # in the main part, and within the distillation
        first = Trainer(TINY, CPU)
        for done in range(stop):
            first.step(10 - done)
        first.save(tmp_path)
        second = Trainer.load(tmp_path, CPU)
        assert [second.step(10 - done) for done in range(stop, 10)] == losses[stop:]
        for part in ("network", "average", "teacher"):
            for one, other in zip(getattr(whole, part).parameters(), getattr(second, part).parameters(), strict=True):
                assert torch.equal(one, other)


def test_a_run_goes_on_from_a_small_checkpoint(tmp_path: Path) -> None:
    run = Trainer(TINY, CPU)
    for done in range(9):
        run.step(9.5 - done)
    assert run.teacher is not None
    run.save(tmp_path / "whole")
    run.save(tmp_path / "small", small=True)
    sizes = [(tmp_path / name / "checkpoint.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < sizes[0] / 4
    other = Trainer.load(tmp_path / "small", CPU)
    assert (other.steps_done, other.progress, other.teacher is None) == (9, run.progress, False)
    for one, theirs in zip(other.network.parameters(), run.average.parameters(), strict=True):
        torch.testing.assert_close(one, theirs, rtol=2**-8, atol=0.0)
    assert math.isfinite(other.step(1))


def test_a_shorter_length_bends_the_schedule() -> None:
    run = Trainer(TINY, CPU)
    run.progress = 0.5
    run.step(5)
    assert run.progress == pytest.approx(0.6)


def test_the_learning_rate_rises_falls_and_ends_at_nothing() -> None:
    assert learning_rate(0.0) < 0.01 < 0.9 < learning_rate(0.02)
    assert learning_rate(DISTILLED - 1e-6) < 0.04
    assert 0.25 < learning_rate(DISTILLED + 0.03) < 0.3
    assert learning_rate(1.0) == pytest.approx(0.0)


def test_the_loss_falls() -> None:
    run = Trainer(Settings(shape=Shape(32, 1, 1, 32), batch=16), CPU)
    losses = [run.step(60 - done) for done in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_the_distillation_target_is_classifier_free_guidance(codec: PatchCodec) -> None:
    draw, objective = Drawer(codec, 8, CPU), Objective(CPU)
    network, batch = build_network(TINY.shape), draw(3)
    guided = objective._guided(network, batch, 2)
    with torch.no_grad():
        rows = (batch.noisy[2:], batch.t[2:], torch.ones(6))
        captioned = network(*rows, *network.embed(batch.clip_ids[2:], batch.t5_ids[2:]), *objective.places)
        empty = network(*rows, *network.embed(*(ids.expand(6, -1) for ids in objective.empty)), *objective.places)
    g = batch.guidance[2:, None, None]
    torch.testing.assert_close(guided, empty + g * (captioned - empty), rtol=0.0, atol=1e-4)


def test_the_network_stays_blind_to_fast_waves_of_time() -> None:
    run = Trainer(TINY, CPU)
    before = [parameter.clone() for parameter in run.network.transformer.time_text_embed.timestep_embedder.parameters()]
    for _ in range(3):
        run.step(10)
    embedder = run.network.transformer.time_text_embed.timestep_embedder
    assert not torch.equal(embedder.linear_1.weight, before[0])
    t = torch.linspace(0.0, 1.0, 2001)
    heard = embedder.linear_1(run.network.transformer.time_text_embed.time_proj(1000.0 * t)).detach().double()
    windowed = ((heard - heard.mean(dim=0)) * torch.hann_window(2001)[:, None]).T
    power = torch.fft.rfft(windowed).abs().square().sum(dim=0)
    assert power[:6].sum() > 0.999 * power.sum()  # no wave with more than six periods between picture and noise


def test_the_learning_curve_knows_a_network_that_is_right(codec: PatchCodec) -> None:
    examination = Examination(codec, CPU, pictures=8, captions=2)
    network = build_network(TINY.shape)
    truth = examination.noise - examination.clean
    x = (1.0 - examination.t[:, None, None]) * examination.clean + examination.t[:, None, None] * examination.noise

    def right(state: torch.Tensor, *_: object) -> torch.Tensor:
        rows = [int((x - one).abs().sum(dim=(1, 2)).argmin()) for one in state]
        return truth[rows] + 0.5

    network.forward = right  # type: ignore[method-assign, assignment]
    figures = examination(network, explicit=True)
    assert figures.loss == pytest.approx(0.25, abs=1e-4)  # the half that it is off by, squared
    assert figures.bands == pytest.approx([0.25] * 4, abs=1e-4)


def test_batches_follow_their_step(codec: PatchCodec) -> None:
    draw = Drawer(codec, 4, CPU)
    one, again, other = draw(5), draw(5), draw(6)
    assert all(torch.equal(getattr(one, name), getattr(again, name)) for name in Batch.__dataclass_fields__)
    assert not torch.equal(one.clean, other.clean)
    assert not torch.equal(one.clean, Drawer(codec, 4, CPU, seed=1)(5).clean)
    assert one.noisy.shape == (4, 64, 72)
    assert one.t.min() > 0.0
    assert one.t.max() < 1.0


def test_the_command_trains_resumes_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--width", "32", "--batch", "2", "--device", "cpu", "--captions", "2"]
    assert train.main([*arguments, "--steps", "2"]) == 0
    assert "finished after 2 steps" in capsys.readouterr().out
    assert train.main([*arguments, "--steps", "2", "--resume"]) == 0  # nothing left to do
    assert load_pipeline(tmp_path / "pipeline").transformer.config.num_attention_heads == 1
    with (tmp_path / "curve.csv").open() as file:
        (first,) = csv.DictReader(file)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert first["step"] == "2"
    assert first["phase"] == "main"
    bands = [float(first[f"loss, band {number}"]) for number in range(1, 5)]
    assert sum(bands) / 4 == pytest.approx(float(first["loss"]), abs=1e-3)
    assert all(0.0 <= float(first[f"{kind} as asked"]) <= 1.0 for kind in KINDS)


def test_a_signal_stops_it_with_a_checkpoint(tmp_path: Path) -> None:
    run = Trainer(TINY, CPU)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert train.run(run, tmp_path, steps=100_000, minutes=None, every=60.0) is False
    assert 0 < Trainer.load(tmp_path, CPU).steps_done == run.steps_done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "must be positive"),
        (["--captions", "0"], "at least 1; got 0"),
        (["--seed", "100"], "from 0 to 99; got 100"),
        (["--width", "50"], "multiple of 32"),
        (["--resume"], "no checkpoint in"),
    ],
)
def test_bad_options_are_one_sentence(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--out", str(tmp_path / "none"), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
