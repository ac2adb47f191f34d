"""The columns of PIE-Bench (Ju et al. 2023, arXiv 2310.01506) as its public evaluation computes them, the quirks included:
evaluation/evaluate.py and matrics_calculator.py of cure-lab/PnPInversion.

Pictures are 8-bit ones, as files hold them, of the size in which the model worked. The unedited part is what lies outside of
the case's region: both pictures are black inside of it and scored over the full frame (see `background`). Where the region
leaves no such pixel these columns are NaN: so they are for 144 of the 700 cases, whose mask covers everything. CLIP's columns
are 100 times the cosine, and 0 for one below 0; prompts that are longer than CLIP reads (77 tokens) are cut off.

Values are given as the evaluation writes them; tables of papers have the structure distance and LPIPS times 1e3, the MSE times
1e4 and the SSIM times 1e2.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..cases.base import Case
from ..options import check, option
from . import pixels
from .background import frame, mask_of
from .base import Metric, Result
from .clip import Clip, ClipMetric
from .dino import DinoMetric
from .networks import DEVICE_HELP, NetworkMetric, compute_device, cosines
from .perceptual import in_batches, lpips_distance, lpips_missing, lpips_suits
from .structure import RESIZE_HELP, RESIZES, StructureDistance

_NET = "squeeze"
_EDGE = 5  # half of the window of 11


@dataclass(frozen=True)
class PieStructure(DinoMetric):
    """The structure distance to the source of the whole picture, by the keys of DINO ViT-B/8 on pixels from 0 to 255 (see
    `structure`). 0 for the source itself."""

    label: ClassVar[str] = "structure (PIE)"
    digits: ClassVar[int] = 5
    higher_is_better: ClassVar[bool | None] = False

    resize: str = option("plain", RESIZE_HELP, choices=RESIZES)

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        return StructureDistance(self.model, self.device, "255", self.resize).many(cases, results)


class _Unedited(Metric):
    """A column of the unedited part. Raises ValueError for a mask of another size than its picture."""

    def suits(self, case: Case) -> bool:
        return case.region is not None and case.is_picture

    def __call__(self, case: Case, result: Result) -> float:
        return self.score(*_unedited(case, result)) if _leaves_some(case) else math.nan

    @abstractmethod
    def score(self, edited: Tensor, source: Tensor) -> float:
        """Of two pictures (3, H, W) in [0, 1] that are black inside of the region."""


class PiePSNR(_Unedited):
    """The peak signal-to-noise ratio to the source of the unedited part, in dB; an unedited part that is equal gets 100, where
    the public evaluation writes inf."""

    label: ClassVar[str] = "PSNR unedited"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool | None] = True

    def score(self, edited: Tensor, source: Tensor) -> float:
        return pixels.psnr(edited, source)


class PieMSE(_Unedited):
    """The mean squared difference from the source of the unedited part, over values in [0, 1]."""

    label: ClassVar[str] = "MSE unedited"
    digits: ClassVar[int] = 6
    higher_is_better: ClassVar[bool | None] = False

    def score(self, edited: Tensor, source: Tensor) -> float:
        return pixels.mse(edited, source)


@dataclass(frozen=True)
class PieSSIM(_Unedited):
    """The structural similarity to the source of the unedited part, at most 1.

    torchmetrics left out windows that reach over an edge of the picture until 1.4, and so do the tables of 2023 and most of
    2024; from 1.5 on it mirrors the picture there, which gives up to 0.01 more or less on a photograph.
    """

    label: ClassVar[str] = "SSIM unedited"
    digits: ClassVar[int] = 4
    higher_is_better: ClassVar[bool | None] = True
    edges: Literal["left-out", "mirrored"] = option(
        "left-out", "windows over the edges: as torchmetrics until 1.4, or from 1.5 on", choices=("left-out", "mirrored")
    )

    def __post_init__(self) -> None:
        check(self)

    def suits(self, case: Case) -> bool:
        return super().suits(case) and pixels.fills_window(case)

    def score(self, edited: Tensor, source: Tensor) -> float:
        if self.edges == "mirrored":
            return pixels.ssim(edited, source)
        return float(pixels.ssim_map(edited, source)[:, _EDGE:-_EDGE, _EDGE:-_EDGE].mean())


@dataclass(frozen=True)
class PieLPIPS(NetworkMetric):
    """LPIPS over SqueezeNet to the source of the unedited part; 0 for one that is equal."""

    label: ClassVar[str] = "LPIPS unedited"
    digits: ClassVar[int] = 5
    higher_is_better: ClassVar[bool | None] = False
    device: str = option("auto", DEVICE_HELP, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def missing(self) -> str:
        return lpips_missing(_NET)

    def suits(self, case: Case) -> bool:
        return case.region is not None and lpips_suits(_NET, case)

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        device = compute_device(self.device)
        edited, sources = zip(*map(_unedited, cases, results), strict=True)
        found = in_batches(lambda a, b: lpips_distance(a, b, _NET, device), edited, sources)
        return [score if _leaves_some(case) else math.nan for case, score in zip(cases, found, strict=True)]


@dataclass(frozen=True)
class _Agreement(ClipMetric):
    """100 times the cosine of CLIP's embeddings of a picture and a prompt, at least 0."""

    higher_is_better: ClassVar[bool | None] = True

    def agreements(self, pictures: Sequence[Tensor], prompts: Sequence[str]) -> list[float]:
        """Of each picture (3, H, W) in [0, 1] with its prompt."""
        clip = Clip.load(self.model, self.device)
        return [max(0.0, 100.0 * cosine) for cosine in cosines(clip.images(pictures), clip.texts(prompts))]


@dataclass(frozen=True)
class PieClipWhole(_Agreement):
    """How well the edited picture agrees with the target prompt, by CLIP, from 0 to 100."""

    label: ClassVar[str] = "CLIP whole"

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        return self.agreements([result.picture for result in results], [case.target for case in cases])


@dataclass(frozen=True)
class PieClipEdited(_Agreement):
    """The same of the edited part alone: the edited picture is black outside of the region. NaN where the region is empty."""

    label: ClassVar[str] = "CLIP edited"

    def suits(self, case: Case) -> bool:
        return case.region is not None and case.is_picture

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        masks = [mask_of(case) for case in cases]
        parts = [result.picture * mask for result, mask in zip(results, masks, strict=True)]
        found = self.agreements(parts, [case.target for case in cases])
        return [score if mask.any() else math.nan for score, mask in zip(found, masks, strict=True)]


@dataclass(frozen=True)
class PieClipSource(_Agreement):
    """How well the source picture agrees with the source prompt, the same for every method. No table of a paper has it, but the
    evaluation's file does."""

    label: ClassVar[str] = "CLIP source"
    higher_is_better: ClassVar[bool | None] = None

    def many(self, cases: Sequence[Case], results: Sequence[Result]) -> list[float]:
        return self.agreements([case.picture for case in cases], [case.source for case in cases])


def _leaves_some(case: Case) -> bool:
    """Whether the region leaves a pixel that is not to be edited."""
    return bool((mask_of(case) == 0).any())


def _unedited(case: Case, result: Result) -> tuple[Tensor, Tensor]:
    """The edited picture and the source as files hold them, (3, H, W) in [0, 1], black inside of the region."""
    mask = mask_of(case)
    edited, source = (pixels.eight_bit(picture) / 255 for picture in (result.picture, case.picture))
    return frame(edited, mask), frame(source, mask)
