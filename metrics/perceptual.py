"""How different two pictures look, by networks that were tuned to human judgements: LPIPS and DreamSim.

Both compare the result with the source, 0 for the same picture: how well a reconstruction came out, and how far an edit went.
"""

from __future__ import annotations

import io
import math
import os
import shlex
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..cases.base import Case
from ..options import check, option
from .base import Metric, Result, Task
from .networks import CHUNK, DEVICE_HELP, compute_device
from .pixels import eight_bit
from .weights import checkpoint_missing, checkpoint_path

TRUNKS = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "squeeze": "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
}
"""torchvision's ImageNet weights that the networks of LPIPS stand on; its heads come with the package lpips."""
NET_HELP = "the network: alex (the authors' advice), vgg, squeeze (PIE-Bench)"

_SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}
"""The shortest side from which every layer of the network has something to look at."""
_AT_ONCE = 2**20
"""Pixels that go through a network at once: one pair of 1024 pixels a side, where VGG keeps more than a gigabyte."""
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""The environment variable by which torch.load reads weights and no other objects, whoever calls it."""
_DREAMSIM_FILES = (
    "dino_vitb16_pretrain.pth",
    "clip_vitb16_pretrain.pth.tar",
    "open_clip_vitb16_pretrain.pth.tar",
    "ensemble_lora/adapter_config.json",
    "facebookresearch_dino_main/hubconf.py",
    "checkpoints/dino_vitbase16_pretrain.pth",
)
"""What DreamSim's ensemble downloads: its checkpoints, and the code and weights of DINO, which it builds on."""


def lpips_distance(a: Tensor, b: Tensor, net: str, device: torch.device) -> Tensor:
    """LPIPS of pictures (B, 3, H, W) in [0, 1], pair by pair: (B,) float32 on the CPU. Computed on `device` by the package
    lpips (version 0.1 of the metric), whose networks take values in [-1, 1]. Raises ValueError where the weights are not on
    this machine."""
    network = _lpips(net, checkpoint_path(TRUNKS[net]), device)
    most = max(1, _AT_ONCE // math.prod(a.shape[2:]))
    with torch.inference_mode():
        parts = [
            network(one.to(device).float(), other.to(device).float(), normalize=True).flatten().cpu()
            for one, other in zip(torch.split(a, most), torch.split(b, most), strict=True)
        ]
    return torch.cat(parts)


def lpips_missing(net: str) -> str:
    """Why LPIPS over this network cannot be had here and what fetches it; "" where it can."""
    return checkpoint_missing(TRUNKS[net], f"LPIPS ({net})")


def lpips_suits(net: str, case: Case) -> bool:
    """Whether a case is a picture that is large enough for the network."""
    return case.is_picture and min(case.shape[1:]) >= _SMALLEST[net]


def in_batches(
    distance: Callable[[Tensor, Tensor], Tensor], results: Sequence[Tensor], sources: Sequence[Tensor]
) -> list[float]:
    """The distance of every result to its source, pictures (3, H, W); neighbours of one size go as one batch."""
    found: list[float] = []
    for _, same in groupby(zip(results, sources, strict=True), key=lambda pair: pair[0].shape):
        ours, theirs = zip(*same, strict=True)
        found += distance(torch.stack(ours), torch.stack(theirs)).tolist()
    return found


@lru_cache(maxsize=4)
def _lpips(net: str, trunk: Path, device: torch.device) -> nn.Module:
    """The network with its heads from the package lpips and its trunk from torchvision's checkpoint, whose layers have the
    numbers that lpips calls them by: net.slice2.3.weight is features.3.weight."""
    from lpips import LPIPS

    if not trunk.is_file():
        raise ValueError(lpips_missing(net))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # what is random at first is overwritten below
        warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated|Arguments other than a weight enum")
        network: nn.Module = LPIPS(net=net, pnet_rand=True, verbose=False)
    weights = torch.load(trunk, map_location="cpu", weights_only=True)
    inner = network.get_submodule("net")
    inner.load_state_dict({name: weights[f"features.{name.partition('.')[2]}"] for name in inner.state_dict()})
    return network.to(device).eval().requires_grad_(False)


@dataclass(frozen=True)
class LPIPS(Metric):
    """The learned perceptual distance to the source, 0 for the same picture (Zhang et al. 2018, arXiv 1801.03924), of the whole
    picture in its own size. Papers differ in the network: they do not compare."""

    label: ClassVar[str] = "LPIPS"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = False
    tasks: ClassVar[tuple[Task, ...]] = ("reconstruct", "edit")
    net: str = option("alex", NET_HELP, choices=tuple(TRUNKS))
    device: str = option("auto", DEVICE_HELP, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def missing(self) -> str:
        return lpips_missing(self.net)

    def suits(self, case: Case) -> bool:
        return lpips_suits(self.net, case)

    def __call__(self, case: Case, result: Result) -> float:
        return self.many([case], [result])[0]

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        device = compute_device(self.device)
        pictures, sources = [result.picture for result in results], [case.picture for case in cases]
        return in_batches(lambda a, b: lpips_distance(a, b, self.net, device), pictures, sources)


@dataclass(frozen=True)
class DreamSim(Metric):
    """The perceptual distance to the source by the ensemble of DINO, CLIP and OpenCLIP features that was tuned to human
    judgements of similarity, 0 for the same picture (Fu et al. 2023, arXiv 2306.09344), by its authors' package and their own
    preparation of 8-bit pictures (224 pixels a side, bicubic). What it needs lies in the folder dreamsim of torch.hub's. Its
    checkpoints are read as weights alone, so that no pickle runs; the code of DINO that was fetched with them does run."""

    label: ClassVar[str] = "DreamSim"
    digits: ClassVar[int] = 3
    higher_is_better: ClassVar[bool | None] = False
    tasks: ClassVar[tuple[Task, ...]] = ("reconstruct", "edit")
    device: str = option("auto", DEVICE_HELP, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def missing(self) -> str:
        if find_spec("dreamsim") is None:
            return "DreamSim is not installed; install it with: pip install 'fe-toolkit[dreamsim]'"
        folder = _dreamsim_folder()
        if all((folder / name).is_file() for name in _DREAMSIM_FILES):
            return ""
        call = f"from dreamsim import dreamsim; dreamsim(cache_dir={str(folder)!r}, device='cpu')"
        return (
            "the weights of DreamSim are not on this machine; fetch them with: "
            f"mkdir -p {shlex.quote(str(folder))} && {_WEIGHTS_ONLY}=1 python -c {shlex.quote(call)}"
        )

    def suits(self, case: Case) -> bool:
        return case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return self.many([case], [result])[0]

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        if why := self.missing():
            raise ValueError(why)
        device = compute_device(self.device)
        network, prepare = _dreamsim(_dreamsim_folder(), device)
        found: list[float] = []
        for first in range(0, len(results), CHUNK):
            pairs = zip(results[first : first + CHUNK], cases[first : first + CHUNK], strict=True)
            ours, theirs = zip(*((prepare(result.picture), prepare(case.picture)) for result, case in pairs), strict=True)
            with torch.inference_mode():
                found += network(torch.cat(ours).to(device), torch.cat(theirs).to(device)).tolist()
        return found


def _dreamsim_folder() -> Path:
    return Path(torch.hub.get_dir()) / "dreamsim"


@lru_cache(maxsize=1)
def _dreamsim(folder: Path, device: torch.device) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The network, and what makes its input (1, 3, 224, 224) of a picture (3, H, W) in [0, 1]."""
    from dreamsim import dreamsim
    from torchvision.transforms.functional import to_pil_image

    hub_folder, forced = torch.hub.get_dir(), os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"  # DINO's code calls torch.load without saying so
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it says which folders it reads
            network, prepare = dreamsim(cache_dir=str(folder), device=str(device))
    finally:
        torch.hub.set_dir(hub_folder)  # it moves torch.hub's folder for the whole process
        if forced is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = forced
    given: nn.Module = network
    return given, lambda picture: prepare(to_pil_image(eight_bit(picture.cpu()).to(torch.uint8)))
