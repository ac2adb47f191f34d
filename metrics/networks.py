"""What metrics of pretrained networks share: where they compute, how pictures go in, and features that are kept.

A picture's features are made once: the source's for all rows of a comparison, an edited picture's for all metrics of one
network. Features are float32 and lie on the CPU.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..cases.base import Case
from .base import Metric, Result
from .pixels import eight_bit
from .weights import CONFIG, WEIGHTS, hub_folder, hub_missing

CHUNK = 16
"""Pictures or prompts that go through a network at once: a ViT-L on 16 pictures of 224 pixels stays well below a gigabyte."""
DEVICE_HELP = "where it computes: auto (cuda where there is one), cpu, cuda, cuda:1"


class NetworkMetric(Metric):
    """A metric of pictures that a network looks at as a batch: subclasses define `many`."""

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return self.many([case], [result])[0]

    @abstractmethod
    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        """The scores of several results, which are looked at CHUNK at a time. Sources are given to the network apart from
        edited pictures: which batch a source is in, and so its rounding, must not depend on which rows were scored before."""


def compute_device(asked: str) -> torch.device:
    """The device called `asked`; "auto" is cuda where there is one. Raises ValueError if there is no such device here."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise ValueError(f"{asked!r} is no device; auto, cpu, cuda or cuda:1 will do") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {asked} here, which has {torch.cuda.device_count()} of them; auto will do")
    return device


def pixel_bytes(picture: Tensor) -> Tensor:
    """A picture (3, H, W) in [0, 1] as the 8-bit values that a file would hold: uint8 on the CPU."""
    return eight_bit(picture.detach().float().cpu()).to(torch.uint8).contiguous()


@dataclass
class Memory:
    """Features by what made them and of what, the last ones used, in at most `most` bytes."""

    most: int
    _kept: OrderedDict[Hashable, Tensor] = field(default_factory=OrderedDict)
    _size: int = 0
    _lock: Lock = field(default_factory=Lock)

    def recall(self, keys: Sequence[Hashable], make: Callable[[Sequence[int]], Sequence[Tensor]]) -> list[Tensor]:
        """The features of each key; `make` is called once with the places of the keys that are not known, each key once."""
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        places = {key: place for place, key in reversed(list(enumerate(keys))) if key not in found}
        unknown = sorted(places.values())
        if unknown:
            made = {keys[place]: features for place, features in zip(unknown, make(unknown), strict=True)}
            self._keep(made)
            found |= made
        return [found[key] for key in keys]

    def _keep(self, made: dict[Hashable, Tensor]) -> None:
        with self._lock:
            for key, features in made.items():
                if key not in self._kept:
                    self._kept[key] = features
                    self._size += features.nbytes
            while self._size > self.most:
                self._size -= self._kept.popitem(last=False)[1].nbytes


FEATURES = Memory(most=512 * 2**20)
"""The features of this process. Half a gigabyte holds what two hundred pictures give to the heaviest metric here."""


def picture_features(made_by: Hashable, pictures: Sequence[Tensor], make: Callable[[Sequence[Tensor]], Tensor]) -> list[Tensor]:
    """The features of each picture (3, H, W) in [0, 1], kept under `made_by` and the picture's pixels. `make` is given up to
    CHUNK pictures of one size at a time, as 8-bit values, and gives one row for each."""
    pixels = [pixel_bytes(picture) for picture in pictures]
    keys = [(made_by, tuple(one.shape), hashlib.blake2b(one.numpy().tobytes(), digest_size=16).digest()) for one in pixels]

    def chunked(places: Sequence[int]) -> list[Tensor]:
        rows: list[Tensor] = []
        for _, same in groupby(places, key=lambda place: pixels[place].shape):
            rows += in_chunks([pixels[place] for place in same], make)
        return rows

    return FEATURES.recall(keys, chunked)


def in_chunks(things: Sequence[Any], make: Callable[[Sequence[Any]], Tensor]) -> list[Tensor]:
    """A row for each thing, CHUNK of them at a time, without gradients, as float32 on the CPU. A row is a tensor of its own,
    so that keeping one does not keep its chunk."""
    rows: list[Tensor] = []
    for first in range(0, len(things), CHUNK):
        with torch.inference_mode():
            made = make(things[first : first + CHUNK]).float().cpu()
        rows += [row.clone() for row in made]
    return rows


@lru_cache(maxsize=8)
def load_network(kind: Callable[..., Any], model: str, device: torch.device) -> Any:
    """The network of a hub id or folder `model` on this machine, in float32, on `device`, ready to evaluate; loaded once.
    `kind` makes it of its folder: `from_pretrained` of a class of transformers. Raises ValueError (one sentence) if it is not
    here, or if its file lacks weights, which the library would draw at random with no more than a warning."""
    network, told = from_folder(kind, model, (CONFIG, WEIGHTS), use_safetensors=True, output_loading_info=True)
    if lacking := sorted([*told["missing_keys"], *map(str, told["mismatched_keys"])]):
        raise ValueError(f"the weights of {model} lack {len(lacking)} of the network's, the first of them {lacking[0]}")
    return network.to(device, torch.float32).eval().requires_grad_(False)


def from_folder(kind: Callable[..., Any], model: str, files: Sequence[str], **told: bool) -> Any:
    """What `kind`, a `from_pretrained` of transformers, makes of the folder of `model`, which must have all of `files`; no
    network is asked. Raises ValueError (one sentence) if one is missing, with what fetches it, or if they cannot be read."""
    from ..models.loading import loading, quiet

    why, folder = hub_missing(model, files), hub_folder(model)
    if why or folder is None:
        raise ValueError(why)
    with loading(model), quiet():
        return kind(folder, local_files_only=True, **told)


def cosines(a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Tensor) -> list[float]:
    """The cosine, from -1 to 1, of each of `a` with the one of `b` in its place, which are features (D,)."""
    if not len(a):
        return []
    return cosine_similarity(torch.stack(list(a)).double(), torch.stack(list(b)).double(), dim=1).clamp(-1, 1).tolist()
