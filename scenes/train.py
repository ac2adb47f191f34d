"""Train the scenes pipeline: `python -m fe.scenes.train --out DIR --steps N`. See docs/scenes.md.

One resumable command. Every few minutes, and on Ctrl-C or SIGTERM, it writes `DIR/checkpoint.safetensors`; with it go
`DIR/pipeline`, the averaged weights as a FluxPipeline that can be used at once, and a line of `DIR/curve.csv`: how far it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from .curve import Examination, append
from .network import Shape, save_pipeline
from .trainer import DISTILLED, Settings, Trainer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fe.scenes.train", description="Train the scenes pipeline.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the exported pipeline")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=12_000, help="batches in all (default 12000)")
    length.add_argument("--minutes", type=float, help="instead of --steps: finish in so many minutes from now")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint; the length may be another one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument(
        "--seed", type=int, default=Settings.seed, help="of weights and pictures, 0 to 99 (default %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=Settings.rate, help="peak learning rate of Muon (default %(default)s)")
    parser.add_argument(
        "--width", type=int, default=Shape.width, help="width of the transformer, a multiple of 32 (default %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the transformer")
    parser.add_argument("--float32", action="store_true", help="no bf16 autocast")
    parser.add_argument("--every", type=float, default=10.0, help="minutes between checkpoints (default 10)")
    parser.add_argument("--small", type=Path, help="folder for a small checkpoint when the run ends, for --resume elsewhere")
    parser.add_argument(
        "--captions", type=int, default=96, help="captions drawn for each line of the learning curve (default 96)"
    )
    return parser


class Meter:
    """Rate and loss over the last steps, and when to say so."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.interval = 1.0 if self.live else 30.0
        self.seconds: float | None = None
        self.loss: float | None = None
        self._steps = 0
        self._last = self._said = time.monotonic()

    def pause(self) -> None:
        """Leave out the time since the last step."""
        self._last = time.monotonic()

    def __call__(self, loss: float) -> None:
        """Take in one finished step."""
        now = time.monotonic()
        spent, self._last = now - self._last, now
        self._steps += 1
        # The mean so far, then one that fades over fifty steps: follows another load on the machine, shrugs off one hiccup.
        # The first step is left out of the time: it includes loading and compiling.
        weight = max(0.02, 1.0 / self._steps)
        self.loss = loss if self.loss is None else self.loss + weight * (loss - self.loss)
        if self._steps > 1:
            weight = max(0.02, 1.0 / (self._steps - 1))
            before = spent if self.seconds is None else self.seconds
            self.seconds = before + weight * (min(spent, 4.0 * before) - before)  # a process that was stopped is not slow

    def say(self, trainer: Trainer, remaining: float) -> None:
        """Write the progress line when it is time to."""
        now = time.monotonic()
        if now - self._said < self.interval or self.seconds is None:
            return
        self._said = now
        phase = "distilling" if trainer.progress >= DISTILLED else "main"
        filled = int(trainer.progress * 20)
        line = (
            f"[{'#' * filled}{'.' * (20 - filled)}] {trainer.progress:6.1%} {phase} step {trainer.steps_done} "
            f"loss {self.loss:.4f} {self.seconds:.3f} s/step ETA {remaining * self.seconds / 60.0:.0f} min"
        )
        print(f"\r{line}\033[K" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)


def save(trainer: Trainer, out: Path) -> None:
    """Write the checkpoint, and replace `out/pipeline` by the present averaged weights."""
    trainer.save(out)
    fresh = out / "pipeline.new"
    shutil.rmtree(fresh, ignore_errors=True)
    save_pipeline(trainer.average, trainer.codec, fresh)
    shutil.rmtree(out / "pipeline", ignore_errors=True)
    os.replace(fresh, out / "pipeline")


def look(trainer: Trainer, examination: Examination, loss: float | None, path: Path) -> None:
    """Add to the learning curve how the averaged weights do now; `loss` is that of the last training steps."""
    distilled = trainer.teacher is not None
    figures = examination(trainer.average, explicit=not distilled)
    row: dict[str, float | str] = {
        "minutes": round(trainer.seconds / 60.0, 2),
        "step": trainer.steps_done,
        "progress": round(trainer.progress, 4),
        "phase": "distilling" if distilled else "main",
        "training loss": "" if loss is None else round(loss, 4),
        "loss": round(figures.loss, 4),
    }
    row |= {f"loss, band {number}": round(band, 4) for number, band in enumerate(figures.bands, start=1)}
    append(path, row | {f"{kind} as asked": round(share, 3) for kind, share in figures.shares.items()})


def run(
    trainer: Trainer, out: Path, steps: int, minutes: float | None, every: float, examination: Examination | None = None
) -> bool:
    """Train to the end; returns False when a signal stopped it before (the checkpoint is written either way)."""
    stopped, begun = False, trainer.steps_done

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    meter = Meter()
    started = saved = time.monotonic()
    try:
        while trainer.progress < 1.0 - 1e-9 and not stopped:
            remaining = float(steps - trainer.steps_done)
            if minutes is not None:
                left = minutes * 60.0 - (time.monotonic() - started)
                remaining = max(left, 0.0) / (meter.seconds or 0.3)
            meter(trainer.step(remaining))
            meter.say(trainer, remaining)
            if time.monotonic() - saved > every * 60.0:
                save(trainer, out)
                if examination is not None:
                    look(trainer, examination, meter.loss, out / "curve.csv")
                saved = time.monotonic()
                meter.pause()
        save(trainer, out)
        if examination is not None and not stopped and trainer.steps_done > begun:
            look(trainer, examination, meter.loss, out / "curve.csv")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return not stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.steps < 1 or (options.minutes is not None and not options.minutes > 0):
        parser.error("--steps and --minutes must be positive")
    if not 0 <= options.seed < 100:
        parser.error(f"--seed must be from 0 to 99; got {options.seed}")
    if options.captions < 1:
        parser.error(f"--captions must be at least 1; got {options.captions}")
    if options.width < 32 or options.width % 32:
        parser.error(f"--width must be a multiple of 32; got {options.width}")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.resume:
        try:
            trainer = Trainer.load(options.out, device, compiled=options.compile)
        except FileNotFoundError as error:
            parser.error(str(error))
    else:
        settings = Settings(
            shape=replace(Shape(), width=options.width),
            batch=options.batch,
            rate=options.rate,
            autocast=not options.float32,
            seed=options.seed,
        )
        trainer = Trainer(settings, device, compiled=options.compile)
    examination = Examination(trainer.codec, device, captions=options.captions)
    finished = run(trainer, options.out, options.steps, options.minutes, options.every, examination)
    if options.small:
        trainer.save(options.small, small=True)
    print(f"\n{'finished' if finished else 'stopped'} after {trainer.steps_done} steps; pipeline in {options.out / 'pipeline'}")
    return 0 if finished else 130


if __name__ == "__main__":
    sys.exit(main())
