"""The training state: network, averaged copy, optimizers, schedule, and how they are stored and resumed."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .attention import ExplicitAttention
from .network import Network, Shape, build_codec, build_network
from .objective import Drawer, Objective

DISTILLED: Final = 0.8
"""Progress at which the main part ends and the distillation of guidance begins."""
_CHECKPOINT: Final = "checkpoint.safetensors"


@dataclass(frozen=True)
class Settings:
    """What fixes a training run, apart from its length. `rate` is the peak of Muon's, `adam_rate` that of AdamW's."""

    shape: Shape = field(default_factory=Shape)
    batch: int = 64
    rate: float = 8e-3
    adam_rate: float = 2e-3
    decay: float = 0.999
    weight_decay: float = 0.1
    autocast: bool = True
    seed: int = 0


def learning_rate(progress: float) -> float:
    """The rate's factor: up in the first 2 %, a cosine down to 0.03 at 80 %, then for the distillation 0.3 falling to 0."""
    if progress < DISTILLED:
        part = progress / DISTILLED
        return min(1.0, (progress + 1e-4) / 0.02) * (0.03 + 0.97 * 0.5 * (1.0 + math.cos(math.pi * part)))
    part = (progress - DISTILLED) / (1.0 - DISTILLED)
    return 0.3 * min(1.0, 0.1 + part / 0.03) * 0.5 * (1.0 + math.cos(math.pi * part))


def make_optimizers(network: Network, settings: Settings) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the weight matrices inside the blocks, AdamW for embeddings, the first and last layers, norms and biases."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        inside = any(part in name for part in ("transformer_blocks.", "encoder.layers.", "encoder.block."))
        hidden = inside and parameter.ndim == 2 and "relative_attention_bias" not in name
        (matrices if hidden else others).append(parameter)
    return (
        torch.optim.Muon(matrices, lr=settings.rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=settings.adam_rate, betas=(0.9, 0.99), weight_decay=0.0),
    )


class Trainer:
    """One training run. `steps_done` counts batches, `seconds` their time; `progress` in [0, 1] places it in the schedule."""

    def __init__(self, settings: Settings, device: torch.device, compiled: bool = False) -> None:
        self.settings = settings
        self.compiled = compiled
        self.device = device
        self.steps_done = 0
        self.seconds = 0.0
        self.progress = 0.0
        self.codec = build_codec(settings.shape.components)
        self.network = build_network(settings.shape, settings.seed).to(device)
        if device.type == "cpu":
            self.network.transformer.set_attn_processor(ExplicitAttention())
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.teacher: Network | None = None
        self.optimizers = make_optimizers(self.network, settings)
        self.draw = Drawer(self.codec, settings.batch, device, settings.seed)
        self.objective = Objective(device)
        if compiled:
            self.network.transformer.compile()

    def step(self, remaining: float) -> float:
        """Train on one batch, as the first of `remaining` steps; returns the loss.

        The progress grows by an equal part of what is left, so a run resumed with another length bends smoothly into it.
        """
        started = time.monotonic()
        self._set_rate()
        batch = self.draw(self.steps_done)
        if self.progress >= DISTILLED and self.teacher is None:
            self._make_teacher()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.autocast):
            if self.teacher is None:
                loss = self.objective.main(self.network, batch)
            else:
                loss = self.objective.distilled(self.network, self.teacher, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._update_average()
        self.steps_done += 1
        self.progress += (1.0 - self.progress) / max(remaining, 1.0)
        self.seconds += time.monotonic() - started
        return float(loss.detach())

    def _set_rate(self) -> None:
        factor = learning_rate(self.progress)
        for optimizer, peak in zip(self.optimizers, (self.settings.rate, self.settings.adam_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor

    def _make_teacher(self) -> None:
        self.teacher = copy.deepcopy(self.average)
        if self.compiled:
            self.teacher.transformer.compile()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.decay, (1 + self.steps_done) / (10 + self.steps_done))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1.0 - decay)

    def _optimizer_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for number, optimizer in enumerate(self.optimizers):
            for index, entries in optimizer.state_dict()["state"].items():
                for name, value in entries.items():
                    yield f"optimizer.{number}.{index}.{name}", value

    def save(self, folder: Path, small: bool = False) -> None:
        """Write the whole state to one file of `folder`, replacing the old one in a single move.

        small: the averaged weights (and the teacher's) alone, in bfloat16, a sixth of the size. A run goes on from there with
        fresh optimizers, and not bit for bit as it would have.
        """
        tensors = {} if small else dict(self._optimizer_tensors())
        parts = {"network": None if small else self.network, "average": self.average, "teacher": self.teacher}
        for part, module in parts.items():
            if module is not None:
                values = dict(module.named_parameters()).items()
                tensors |= {f"{part}.{name}": value.bfloat16() if small else value for name, value in values}
        state = {
            "steps_done": self.steps_done,
            "seconds": self.seconds,
            "progress": self.progress,
            "settings": asdict(self.settings),
        }
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / (_CHECKPOINT + ".new")
        plain = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        save_file(plain, fresh, metadata={"state": json.dumps(state)})
        os.replace(fresh, folder / _CHECKPOINT)

    @classmethod
    def load(cls, folder: Path, device: torch.device, compiled: bool = False) -> Trainer:
        """The run stored in `folder`.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        path = folder / _CHECKPOINT
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint in {folder}; leave out --resume to start a new run")
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stored = dict(state["settings"])
        trainer = cls(Settings(**{**stored, "shape": Shape(**stored["shape"])}), device, compiled)
        trainer.steps_done, trainer.seconds, trainer.progress = state["steps_done"], state["seconds"], state["progress"]
        whole = any(name.startswith("network.") for name in tensors)
        trainer._fill(trainer.network, "network." if whole else "average.", tensors)
        trainer._fill(trainer.average, "average.", tensors)
        if any(name.startswith("teacher.") for name in tensors):
            trainer._make_teacher()
            assert trainer.teacher is not None
            trainer._fill(trainer.teacher, "teacher.", tensors)
        if whole:
            trainer._fill_optimizers(tensors)
        return trainer

    @staticmethod
    @torch.no_grad()
    def _fill(module: nn.Module, prefix: str, tensors: dict[str, Tensor]) -> None:
        for name, parameter in module.named_parameters():
            parameter.copy_(tensors[prefix + name])

    def _fill_optimizers(self, tensors: dict[str, Tensor]) -> None:
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            prefix = f"optimizer.{number}."
            for name, value in tensors.items():
                if name.startswith(prefix):
                    index, entry = name.removeprefix(prefix).split(".", 1)
                    state.setdefault(int(index), {})[entry] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
