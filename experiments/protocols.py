"""Protocols: how the field measures, as named and versioned recipes for `fe compare`, beside what was published with them.

Standard library only, so that listing them costs nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..registry import RegistryError
from . import published
from .published import Printed


@dataclass(frozen=True)
class Protocol:
    """A recipe. It fills in what was not asked for: `methods` (as `Method.read` takes them, with their steps), `cases` (as
    `CaseChoice.read` does), `metrics`, `model`, and `settings` (options by the name of their owner); `tasks`: those of the
    metrics that it asks for, if not all.

    `version` counts changes of what it measures; `paper` and `what` say whose it is and what it shows. `assumed`: what was
    decided here where the paper or its code is silent, a sentence each. `printed`: figures that others printed; they are
    shown beside ours, never among them. `layout`: a file that is written besides, as others read it.
    """

    version: int
    paper: str
    what: str
    model: str
    cases: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    printed: Printed = field(default_factory=Printed)
    layout: Literal["", "pie-bench"] = ""


def find_protocol(name: str) -> Protocol:
    """The protocol called `name`. Raises RegistryError with the near names."""
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(PROTOCOLS)}"
        raise RegistryError(f"unknown protocol {name!r}; {hint}")
    return PROTOCOLS[name]


_STATE = "The state of the ODE is float32, whatever the network computes in (public codes of FLUX methods keep it in bfloat16)."
_CODEC = "The codec's latent is the mean of its posterior, not a draw."
_SEED = "Noise is drawn for every case from seed 0: no result depends on the order of the cases, and no draw is a paper's."
_CLIP_L = "CLIP is OpenAI's ViT-L/14, DINO is ViT-B/8 (the CLS token), LPIPS is over AlexNet; which ones were used is not said."

_PIE_METRICS: Final = (
    *("pie-structure", "pie-psnr", "pie-lpips", "pie-mse", "pie-ssim"),
    *("pie-clip-whole", "pie-clip-edited"),
)

PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "pie-bench@pnpinversion": Protocol(
        version=1,
        paper="Ju et al. 2023, arXiv 2310.01506",
        what="PIE-Bench's seven columns as its public evaluation computes them, for methods on FLUX as their papers ran them",
        model="flux-dev",
        cases="pie-bench",
        methods=(
            *("rf-inversion@paper", "rf-edit@paper", "fireflow@paper-15", "fireflow@paper-8"),
            *("flowedit@flux", "uni-edit@paper", "uni-edit@paper-0.8", "dnaedit@flux"),
        ),
        metrics=_PIE_METRICS,
        tasks=("edit",),
        assumed=(
            "Pictures are edited in their own size, 512x512; papers seldom say whether they went to 1024x1024 and back.",
            "The brackets around edited words are taken out of prompts, for the editors and for CLIP.",
            "No editor is given the mask, which is the metrics' alone; its outermost pixels count as edited.",
            "SSIM leaves out windows that reach over the picture's edge, as torchmetrics did until 1.4 (October 2024); since "
            "1.5 it does not, which gives up to 0.01 more or less (pie-ssim.edges=mirrored).",
            "For the structure distance pictures are made smaller without smoothing, as by torchvision 0.13.1, which the "
            "public code names; since 0.17 the same code smooths (pie-structure.resize=antialiased). Which one a paper's "
            "row is of is seldom said.",
            "Where a mask covers everything (144 of 700) the unedited part is not defined: such cases are left out of a mean, "
            "and n= tells how many are left. All ten kinds count, the random ones too.",
            "Methods run with the options of their presets (fe list presets); what a preset departs in stands there.",
            _SEED,
            _STATE,
            _CODEC,
        ),
        printed=published.PIE_BENCH,
        layout="pie-bench",
    ),
    "reconstruction@fireflow": Protocol(
        version=1,
        paper=f"{published.FIREFLOW}, table 3",
        what="pictures inverted and generated again under one prompt, by solver and steps",
        model="flux-dev",
        cases="folder",
        methods=(
            *("inversion+euler/30", "inversion+rf-solver/30", "inversion+fireflow/30"),
            *("inversion+rf-solver/5", "inversion+euler/9", "inversion+fireflow/8"),
        ),
        metrics=("lpips", "ssim", "psnr"),
        tasks=("reconstruct",),
        assumed=(
            "The pictures are the folder's: the paper takes the first 1000 of DCI with their official captions, each of which "
            "goes into `source`; which of DCI's captions it takes is not said.",
            "Pictures keep their size, less what the model cannot take; the paper's size is not said.",
            "Guidance is 1 both ways, no feature is injected, and the way back starts from the latent alone.",
            "LPIPS is over AlexNet and SSIM has a Gaussian window of 11, both on whole pictures; which were used is not said.",
            _STATE,
            _CODEC,
        ),
        printed=published.RECONSTRUCTION,
    ),
    "generation@fireflow": Protocol(
        version=1,
        paper=f"{published.FIREFLOW}, table 2",
        what="text to image by solver at 20 evaluations (FireFlow: 11), FID against the cases' own pictures and CLIP",
        model="flux-dev",
        cases="folder",
        methods=("from-noise+euler/20", "from-noise+rf-solver/10", "from-noise+fireflow/10"),
        metrics=("clip-t", "fid"),
        settings={"from-noise": {"target_guidance": "3.5"}, "fid": {"against": "source"}},
        tasks=("edit",),
        assumed=(
            "The folder holds photographs with their captions as `target`: the paper takes 10,000 captions of MSCOCO 2014's "
            "validation set at random, and does not say which.",
            "FID is against the folder's own pictures; the paper does not say against which.",
            "A picture is drawn in the size of the folder's, and guidance is 3.5, usual for FLUX.1-dev; neither is said.",
            "CLIP is OpenAI's ViT-L/14; CLIP-T is a cosine, and the paper's figures are divided by 100.",
            "The paper's seed is 1024 for all; here every case draws its own noise from seed 0.",
            _STATE,
        ),
        printed=published.GENERATION,
    ),
    "transport@flowedit-cat-dog": Protocol(
        version=1,
        paper=f"{published.FLOWEDIT}, section 5.3 and appendix M",
        what="cats that the model drew itself turned into dogs: what it costs, and how near to drawn dogs one gets",
        model="sd3-medium",
        cases="folder",
        methods=("flowedit@sd3", "inversion+euler/50"),
        metrics=("latent-cost", "lpips", "fid", "kid"),
        settings={
            "inversion": {"source_guidance": "1", "target_guidance": "7"},
            "from-noise": {"target_guidance": "7", "draw": "0,1"},
            **{name: {"against": "from noise draw=1"} for name in ("fid", "kid")},
        },
        tasks=("edit",),
        assumed=(
            "The folder is one that `fe generate --prompts cat-dog --steps 50 --guidance 7` drew with the same model and seed: "
            "then the control from noise with draw=0 starts from the very noise of its source, and is the paper's inversion, "
            "which is exact; draw=1 owes nothing to the source, and is what FID and KID are against.",
            "The paper's 1000 prompts were written by a language model and are not published: those of cat-dog are made up "
            "here, by the same recipe.",
            "The guidance that sources and dogs are drawn with is not said; 7 is usual for SD3. Inversion by Euler steps, "
            "which is not in the paper, inverts with 1.",
            "LPIPS is over AlexNet; FID and KID are of Inception's 2048 features.",
            _STATE,
            _CODEC,
        ),
        printed=published.TRANSPORT,
    ),
    "flowedit-own-set": Protocol(
        version=1,
        paper=f"{published.FLOWEDIT}, tables S5 to S7 and S9",
        what="FlowEdit and its baselines over FlowEdit's own pictures, edits of objects, style and lettering",
        model="flux-dev",
        cases="flowedit",
        methods=(
            *("sdedit@flux", "inversion+euler/28", "rf-inversion@paper", "rf-edit@paper/30"),
            *("flowedit@flux", "flowedit@flux-style"),
        ),
        metrics=("clip-t", "clip-i", "lpips", "dino", "dreamsim"),
        settings={
            "sdedit": {"strength": "0.5,0.75"},
            "inversion": {"n_max": "24", "source_guidance": "1", "target_guidance": "3.5"},
            "injection": {"inject": "2,5"},
        },
        tasks=("edit",),
        assumed=(
            "All edits of the published list count; the set does not tag them, and the kinds (object, style, lettering) are by "
            "a rule of thumb on prompts, or by a tags.csv beside the list.",
            "Every row runs on all edits: read flowedit@flux-style on style edits, which --set flowedit.kinds=style takes "
            "alone; --set flowedit.kinds=lettering takes those of words in pictures.",
            "Inversion goes 24 of 28 steps (the paper: 20 or 24) with guidance 1 up and 3.5 back, SDEdit has guidance 3.5; "
            "neither is said. RF-Inversion ends its pull after 7 of 28 steps with eta 0.9 (the paper: 6, 7 or 8, and 0.9 or "
            "1).",
            "For SD3: --model sd3-medium --methods sdedit@sd3,inversion+euler/50,flowedit@sd3,flowedit@sd3-style --set "
            "sdedit.strength=0.2,0.4 --set inversion.n_max=33.",
            _CLIP_L,
            _SEED,
            _STATE,
            _CODEC,
        ),
        printed=published.FLOWEDIT_SET,
    ),
    "instaflow-sweep": Protocol(
        version=1,
        paper=published.STUDY,
        what="FlowEdit on 2-rectified flow, n_max by target guidance: 12 rows of 25 steps",
        model="2rf",
        cases="flowedit",
        methods=("flowedit@2rf",),
        metrics=("clip-t", "clip-i", "dino", "lpips", "dreamsim"),
        settings={
            "flowedit": {
                "n_max": "19,21,23,25",
                "target_guidance": "16.5,18.5,20.5",
                "source_guidance": "1.5",
                "n_min": "1",
                "n_avg": "1",
            }
        },
        tasks=("edit",),
        assumed=(
            "Pictures are edited in the size that they have (1024x1024 as published): --set flowedit.side=512 brings them to "
            "the size that the model was trained on. What the study did is not said.",
            _CLIP_L,
            _SEED,
            _STATE,
            _CODEC,
        ),
        printed=published.INSTAFLOW,
    ),
    "guidance-conflict": Protocol(
        version=1,
        paper="no paper",
        what="editing by inversion with more and more guidance on the way up, and the same 3.5 on the way back",
        model="scenes",
        cases="scenes",
        methods=("inversion+euler/28",),
        metrics=("truth-psnr", "changed", "kept", "source-ssim", "latent-cost"),
        settings={"inversion": {"source_guidance": "1,1.5,2,3,5,7", "target_guidance": "3.5"}},
        tasks=("edit",),
        assumed=(
            "It runs on the small world that ships, where the right answer is known. On photographs: --model sd3-medium "
            "--cases folder:FOLDER --metrics clip-t,lpips,source-psnr.",
            "The way up is under the source prompt, so that guidance pulls a picture towards what it shows already.",
        ),
        printed=published.GUIDANCE,
    ),
    "mixture@flowedit": Protocol(
        version=1,
        paper=f"{published.FLOWEDIT}, section 5",
        what="points of one Gaussian mixture carried to another by exact velocities: who mixes the modes, and at what cost",
        model="mixture",
        cases="mixture",
        methods=("inversion+euler/100", "flowedit+euler/100"),
        metrics=("transport-cost", "wrong-mode", "mode-distance"),
        settings={"flowedit": {"n_max": "1000000"}},
        tasks=("edit",),
        assumed=(
            "The target's modes are (-15, 0) and (15, 0) in place of the printed (-15, 0) and (0, 15), with which no method "
            "can reach a wrong mode.",
            "Modes have equal weights and standard deviation 1; there are 20 clouds of 1000 points, 100 Euler steps, all of "
            "them edited, and one draw of noise a step.",
            "A point belongs to the mode that it is nearest to.",
        ),
        printed=published.MIXTURE,
    ),
}
