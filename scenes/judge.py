"""The judge: a small convolutional network that reads the six attributes off a picture."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .attributes import VALUES

JUDGE: Final = Path(__file__).parent / "weights" / "judge"
"""The folder of the shipped judge."""
_FILE: Final = "judge.safetensors"


class Reading(NamedTuple):
    """What the judge saw. Unlike a Scene, it may name one colour twice: an edit can make the object vanish."""

    shape: str
    colour: str
    size: str
    position: str
    background: str
    pattern: str


class Judge(nn.Module):
    """Four strided convolutions, one hidden layer, a head for each attribute; 0.3 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 96)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 5 if before == 3 else 3, stride=2, padding=2 if before == 3 else 1)]
            layers += [nn.GroupNorm(4, after), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 128), nn.SiLU())
        self.heads = nn.Linear(128, sum(len(values) for values in VALUES.values()))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Logits of each attribute, (B, number of its values), for pictures (B, 3, 64, 64) in [0, 1]."""
        logits: Tensor = self.heads(self.trunk(pictures * 2.0 - 1.0))
        return torch.split(logits, [len(values) for values in VALUES.values()], dim=1)

    @torch.no_grad()
    def indices(self, pictures: Tensor) -> Tensor:
        """The most likely value of each attribute, (B, 6) long.

        Raises:
            ValueError: the pictures are not (B, 3, 64, 64).
        """
        if pictures.ndim != 4 or pictures.shape[1:] != (3, 64, 64):
            raise ValueError(f"the judge reads pictures of shape (B, 3, 64, 64); got {tuple(pictures.shape)}")
        parameter = self.heads.weight
        logits = self(pictures.to(parameter.device, parameter.dtype).clamp(0.0, 1.0))
        return torch.stack([one.argmax(dim=1) for one in logits], dim=1)

    def read(self, pictures: Tensor) -> list[Reading]:
        """The attributes of pictures (B, 3, 64, 64) in [0, 1], by name; ValueError for another shape."""
        names = tuple(VALUES.values())
        return [Reading(*(names[k][i] for k, i in enumerate(row))) for row in self.indices(pictures).tolist()]

    def save(self, folder: Path = JUDGE) -> None:
        """Write the weights to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / _FILE)

    @classmethod
    def load(cls, folder: Path = JUDGE, device: torch.device | str = "cpu") -> Judge:
        """The shipped judge, or the one in `folder`, ready to read.

        Raises:
            FileNotFoundError: there are no weights.
        """
        path = folder / _FILE
        if not path.is_file():
            raise FileNotFoundError(f"no judge in {folder}; train one with `python -m fe.scenes.train_judge`")
        judge = cls()
        judge.load_state_dict(load_file(path))
        return judge.to(device).eval().requires_grad_(False)
