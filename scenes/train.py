"""Train the scenes pipeline: `python -m fe.scenes.train --out DIR --steps N`. See docs/scenes.md.

One resumable command. Every few minutes, and on Ctrl-C or SIGTERM, it writes `DIR/checkpoint.safetensors`; with the checkpoint
goes `DIR/pipeline`, the averaged weights as a FluxPipeline that can be used at once.
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
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--width", type=int, default=128, help="width of the transformer, a multiple of 32")
    parser.add_argument("--compile", action="store_true", help="torch.compile the transformer")
    parser.add_argument("--float32", action="store_true", help="no bf16 autocast")
    parser.add_argument("--every", type=float, default=5.0, help="minutes between checkpoints (default 5)")
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
            self.seconds = spent if self.seconds is None else self.seconds + weight * (spent - self.seconds)

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
    """Write the checkpoint and replace `out/pipeline` by the present averaged weights."""
    trainer.save(out)
    fresh = out / "pipeline.new"
    shutil.rmtree(fresh, ignore_errors=True)
    save_pipeline(trainer.average, trainer.codec, fresh)
    shutil.rmtree(out / "pipeline", ignore_errors=True)
    os.replace(fresh, out / "pipeline")


def run(trainer: Trainer, out: Path, steps: int, minutes: float | None, every: float) -> bool:
    """Train to the end; returns False when a signal stopped it before (the checkpoint is written either way)."""
    stopped = False

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
                saved = time.monotonic()
        save(trainer, out)
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
        )
        trainer = Trainer(settings, device, compiled=options.compile)
    finished = run(trainer, options.out, options.steps, options.minutes, options.every)
    print(f"\n{'finished' if finished else 'stopped'} after {trainer.steps_done} steps; pipeline in {options.out / 'pipeline'}")
    return 0 if finished else 130


if __name__ == "__main__":
    sys.exit(main())
