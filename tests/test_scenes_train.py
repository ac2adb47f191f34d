"""The training: a stopped and resumed run equals an uninterrupted one, distillation included, and the command exports."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from fe.scenes import train, trainer
from fe.scenes.codec import PatchCodec
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
    monkeypatch.setattr(trainer, "build_codec", lambda: codec)


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


def test_batches_follow_their_step(codec: PatchCodec) -> None:
    draw = Drawer(codec, 4, CPU)
    one, again, other = draw(5), draw(5), draw(6)
    assert all(torch.equal(getattr(one, name), getattr(again, name)) for name in Batch.__dataclass_fields__)
    assert not torch.equal(one.clean, other.clean)
    assert one.noisy.shape == (4, 64, 64)
    assert one.t.min() > 0.0
    assert one.t.max() < 1.0


def test_the_command_trains_resumes_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--width", "32", "--batch", "2", "--device", "cpu"]
    assert train.main([*arguments, "--steps", "2"]) == 0
    assert "finished after 2 steps" in capsys.readouterr().out
    assert train.main([*arguments, "--steps", "2", "--resume"]) == 0  # nothing left to do
    assert load_pipeline(tmp_path / "pipeline").transformer.config.num_attention_heads == 1


def test_a_signal_stops_it_with_a_checkpoint(tmp_path: Path) -> None:
    run = Trainer(TINY, CPU)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert train.run(run, tmp_path, steps=100_000, minutes=None, every=60.0) is False
    assert 0 < Trainer.load(tmp_path, CPU).steps_done == run.steps_done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--steps", "0"], "must be positive"), (["--width", "50"], "multiple of 32"), (["--resume"], "no checkpoint in")],
)
def test_bad_options_are_one_sentence(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--out", str(tmp_path / "none"), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
