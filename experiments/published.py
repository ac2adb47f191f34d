"""Figures as papers and codes print them, to be laid beside ours and never among them. Standard library only.

They are in the units of our columns, with the digits that were printed: where a table has a structure distance times 1e3, the
point was moved and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple


class Published(NamedTuple):
    """A row of somebody's table: the method as it is called there, its figures by column as text ("" where there is none), and
    where it stands."""

    method: str
    figures: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Printed:
    """What others printed. `columns`: the headings of the figures. `remarks`: what was claimed in words, where figures
    contradict each other, and what keeps them from being compared; a sentence each. Raises ValueError for a row that has
    another number of figures."""

    columns: tuple[str, ...] = ()
    rows: tuple[Published, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.figures) != len(self.columns):
                raise ValueError(f"{row.method} has {len(row.figures)} figures for {len(self.columns)} columns")


SECOND_HAND: Final = "second-hand: from notes on the paper, not held against it"

FIREFLOW: Final = "Deng et al. 2024 (FireFlow), arXiv 2412.07517"
FLOWEDIT: Final = "Kulikov et al. 2024 (FlowEdit), arXiv 2412.08629"
PNP: Final = "Ju et al. 2023 (PnP Inversion), arXiv 2310.01506, table of the public code"
DECFLOWEDIT: Final = "DecFlowEdit, arXiv 2609.34237"
UNI_EDIT: Final = f"Jiao et al. 2025 (UniEdit-Flow), arXiv 2504.13109; {SECOND_HAND}"
DIRECT_EDIT: Final = f"DirectEdit; {SECOND_HAND}"
STUDY: Final = "a study of FlowEdit on 2-rectified flow (InstaFlow's), pictures and prompts of FlowEdit's own set"

_SCALED: Final = (0, 3, 0, 3, 4, 2, 0, 0)
"""Powers of ten by which most tables multiply PIE-Bench's columns, after the NFE."""


def _rows(source: str, lines: str, shifts: Sequence[int] = ()) -> Iterator[Published]:
    """Rows of "METHOD | FIGURE FIGURE ...", a line each, with "-" where there is no figure; `shifts` are the powers of ten by
    which the figures were multiplied where they were printed (none: by 1)."""
    for line in lines.strip().splitlines():
        method, _, printed = line.partition("|")
        figures = printed.split()
        moved = (_moved(text, shift) for text, shift in zip(figures, shifts or (0,) * len(figures), strict=True))
        yield Published(method.strip(), tuple(moved), source)


def _moved(figure: str, shift: int) -> str:
    """A printed number with its point moved `shift` digits to the left, all its digits kept."""
    return "" if figure == "-" else format(Decimal(figure).scaleb(-shift), "f")


PIE_BENCH: Final = Printed(
    ("NFE", "struct.", "PSNR", "LPIPS", "MSE", "SSIM", "CLIP whole", "CLIP edited"),
    (
        *_rows(
            f"{FIREFLOW}, table 4",
            """
            P2P, DDIM            | 100 .0694 17.87 - - .7114 25.01 22.44
            Pix2Pix-Zero, DDIM   | 100 .0617 20.44 - - .7467 22.80 20.54
            MasaCtrl, DDIM       | 100 .0284 22.17 - - .7967 23.96 21.16
            PnP, DDIM            | 100 .0282 22.28 - - .7905 25.41 22.55
            PnP-Inversion, PnP   | 100 .0243 22.46 - - .7968 25.41 22.62
            RF-Inversion, FLUX   | 56 .0406 20.82 - - .7192 25.20 22.11
            RF-Solver, FLUX      | 60 .0311 22.90 - - .8190 26.00 22.88
            FireFlow 15, FLUX    | 32 .0283 23.28 - - .8282 25.98 22.94
            FireFlow 8, FLUX     | 18 .0271 23.03 - - .8249 26.02 22.81
            """,
        ),
        *_rows(
            PNP,
            """
            P2P, DDIM              | - 69.43 17.87 208.80 219.88 71.14 25.01 22.44
            P2P, null text         | - 13.44 27.03 60.67 35.86 84.11 24.75 21.86
            P2P, PnP-Inversion     | - 11.65 27.22 54.55 32.86 84.76 25.02 22.10
            PnP, PnP-Inversion     | - 24.29 22.46 106.06 80.45 79.68 25.41 22.62
            MasaCtrl, PnP-Inversion | - 24.70 22.64 87.94 81.09 81.33 24.38 21.35
            """,
            _SCALED,
        ),
        *_rows(
            DECFLOWEDIT,
            """
            FlowEdit, FLUX, 24 steps | - 28.99 21.72 104.79 98.32 83.87 25.88 22.71
            FlowEdit, SD3, 33 steps | - 26.39 22.27 100.15 85.71 83.93 27.51 23.92
            FlowEdit, SD3.5, 33 steps | - 22.55 23.27 88.78 69.66 85.57 27.62 23.95
            DNAEdit, SD3.5         | - 14.24 26.45 76.85 34.09 88.45 25.48 22.74
            DecFlowEdit-short, FLUX | - 7.46 30.26 21.06 19.38 94.50 25.21 22.08
            DecFlowEdit, FLUX      | - 7.86 30.54 20.90 19.23 94.54 25.25 22.15
            """,
            _SCALED,
        ),
        *_rows(
            UNI_EDIT,
            """
            Uni-Edit 0.6, FLUX | 28 10.14 29.54 - - - 25.80 22.33
            Uni-Edit 0.8, FLUX | 37 26.85 24.10 - - - 26.97 23.51
            """,
            _SCALED,
        ),
        *_rows(
            DIRECT_EDIT,
            """
            DNAEdit, FLUX    | - 16.81 25.20 86.68 48.35 - 24.81 -
            DirectEdit, FLUX | 60 17.94 32.63 35.45 25.05 - 25.39 -
            """,
            _SCALED,
        ),
    ),
    (
        "Papers disagree on one and the same baseline: RF-Solver's PSNR is 22.90 in one and 24.33 in another; FlowEdit on SD3 "
        "has a structure distance of 0.02639 in one and 0.01464 in another, FlowAlign 0.03670 and 0.00621.",
        "FlowEdit's NFE is printed as 24 (steps), 28, 33 or 48 for one and the same run; ours is counted at the network.",
        "Others found CLIP whole 0.85 below FireFlow's table with FireFlow's public code, on the nine kinds that are not "
        "random, and 0.68 below UniEdit-Flow's with UniEdit-Flow's.",
        "P2P, Pix2Pix-Zero, MasaCtrl and PnP are methods for Stable Diffusion 1. DirectEdit is given masks that a language "
        "model and a segmentation model make.",
    ),
)

RECONSTRUCTION: Final = Printed(
    ("NFE", "LPIPS", "SSIM", "PSNR"),
    tuple(
        _rows(
            f"{FIREFLOW}, table 3",
            """
            DDIM inversion, 50 steps | 100 .2342 .5872 19.72
            RF-Solver, 30 steps      | 120 .2926 .7078 20.05
            Euler, 30 steps          | 60 .5044 .5632 16.57
            FireFlow, 30 steps       | 62 .1579 .8160 23.87
            RF-Solver, 5 steps       | 20 .5010 .5232 14.72
            Euler, 9 steps           | 18 .8145 .3828 15.29
            FireFlow, 8 steps        | 18 .4111 .5945 16.01
            """,
        )
    ),
    (
        "NFE counts both ways. DDIM inversion is not of this model, and has no row of ours.",
        "The paper says that RF-Solver's error rises beyond about 25 steps. On a flow with a closed form, a state that is kept "
        "in bfloat16, as in the public code, does that by itself, and one in float32 does not: ours is float32.",
        "The paper has no row for the codec alone, which bounds all others; ours has. For FLUX on PIE-Bench 34.38 dB was "
        f"printed ({DIRECT_EDIT}).",
    ),
)

GENERATION: Final = Printed(
    ("NFE", "CLIP-T", "FID"),
    tuple(
        _rows(
            f"{FIREFLOW}, table 2",
            """
            FLUX.1-dev (Euler), 20 steps | 20 31.44 26.77
            RF-Solver, 10 steps          | 20 31.35 25.93
            FireFlow, 10 steps           | 11 31.42 25.16
            """,
            (0, 2, 0),
        )
    ),
    (
        "FireFlow's row takes 11 evaluations and the others 20. FID is of 10,000 pictures: at fewer it is larger by itself, so "
        "only runs of as many pictures compare.",
    ),
)

TRANSPORT: Final = Printed(
    ("latent cost", "LPIPS", "FID", "KID"),
    tuple(
        _rows(
            f"{FLOWEDIT}, section 5.3",
            """
            FlowEdit, SD3                           | 1376 .15 51.14 .017
            inversion, exact (noise is known), SD3  | 2239 .25 55.88 .023
            """,
        )
    ),
    (
        "The paper's latent cost is over an unknown number of entries, ours a mean over all of them: hold the ratios of "
        "FlowEdit to inversion against ours, 0.615 of the latent cost, 0.60 of LPIPS, 0.915 of FID, 0.74 of KID.",
        "FID of 1000 pictures against 1000 is far too large by itself, in both rows alike.",
    ),
)

FLOWEDIT_SET: Final = Printed(
    ("CLIP-T", "CLIP-I", "LPIPS", "DINO", "DreamSim"),
    (
        *_rows(
            f"{FLOWEDIT}, tables S5 and S6",
            """
            SDEdit 0.5, FLUX     | .316 .902 .264 .637 .180
            SDEdit 0.75, FLUX    | .331 .862 .348 .557 .260
            ODE inversion, FLUX  | .341 .822 .374 .505 .328
            RF-Inversion, FLUX   | .334 .856 .340 .558 .266
            RF-Edit 2, FLUX      | .344 .833 .335 .530 .320
            RF-Edit 5, FLUX      | .332 .876 .220 .650 .220
            FlowEdit, FLUX       | .337 .875 .223 .682 .252
            SDEdit 0.2, SD3      | .330 .885 .251 .634 .213
            SDEdit 0.4, SD3      | .340 .854 .316 .564 .273
            ODE inversion, SD3   | .337 .813 .318 .549 .326
            iRFDS, SD3           | .335 .822 .376 .534 .327
            FlowEdit, SD3        | .344 .872 .181 .719 .253
            """,
        ),
        *_rows(
            f"{FLOWEDIT}, table S9",
            """
            FlowEdit, SD3, source paraphrased | .343 .872 .181 .713 .254
            FlowEdit, SD3, source empty       | .343 .872 .192 .709 .254
            """,
        ),
    ),
    (
        "The paper speaks of over 250 pairs of over 70 pictures; the published set has 281 of 77, and which of them its rows "
        "are of is not said.",
        "Of averaging (n_avg) the text says that it lowers LPIPS by about 0.3 and raises CLIP by 0.035, which the axes of its "
        "figure (0.17 to 0.20, 0.339 to 0.345) cannot hold; a tenth of both can.",
        "No figures are printed for style edits or lettering alone.",
    ),
)

INSTAFLOW: Final = Printed(
    ("CLIP-T", "CLIP-I", "DINO", "LPIPS", "DreamSim"),
    tuple(
        _rows(
            STUDY,
            """
            target guidance 16.5 | .207 .878 .750 .159 .252
            target guidance 18.5 | .208 .867 .723 .181 .276
            target guidance 20.5 | .207 .857 .701 .203 .298
            FlowEdit, SD3.5      | .344 .872 .713 .181 .253
            FlowEdit, FLUX       | .337 .875 .682 .223 .252
            """,
        )
    ),
    (
        "The study ran 12 settings and prints three rows, one for each target guidance; how it made one row of four values of "
        "n_max (the best, a mean, one of them) it does not say. All 12 are given here.",
        "Its CLIP-T of 0.207 lies far below that of other models on the same prompts and does not move with guidance; whether "
        "another CLIP was used is not said.",
        "Its row for SD3.5 is the one that FlowEdit's paper prints for SD3, but for DINO (0.719 there).",
    ),
)

GUIDANCE: Final = Printed(
    remarks=(
        "No table is known. The public codes of RF-Solver and FireFlow invert with guidance 1 and generate with more; the "
        "sweep shows what other guidance does.",
    )
)

MIXTURE: Final = Printed(
    remarks=(
        f"{FLOWEDIT}, section 5, has no table; it says that inversion mixes the modes and FlowEdit does not, and that its "
        'cost is "less than twice as low".',
        "With the target that the paper prints neither can be seen: its modes mirror each other in the line x + y = 0, and so "
        "do the source's, so that exact inversion keeps every point on its side. --set mixture.target=printed-target shows it.",
    )
)
