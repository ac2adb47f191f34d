"""What the package in Python refuses, each in a sentence that says what would do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fe
import numpy as np
import pytest
import torch
from fe.models.flux import FluxModel
from fe.solvers.euler import Euler
from PIL import Image

SHORT: dict[str, Any] = {"source": "a red star", "target": "a blue heart", "steps": 4, "seed": 3}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 3, 48), np.float32), r"an array \(H, W, 3\) or a tensor \(3, H, W\), got \(4, 3, 48\)"),
        (np.zeros((48, 48, 2), np.uint8), r"as an array is \(H, W, 3\), got \(48, 48, 2\)"),
        (np.zeros((48, 48, 3), np.int64), r"numbers are uint8, or floats in \[0, 1\]; got int64"),
        (np.array([None]), "numbers are uint8, or floats"),
        (torch.zeros(1, 3, 48, 48), r"got \(1, 3, 48, 48\)"),
        (torch.full((3, 48, 48), 1.5), r"floats are in \[0, 1\], got 1.5 to 1.5"),
        (torch.full((3, 48, 48), float("nan")), r"floats are in \[0, 1\], got nan"),
        (7, "got int"),
        ("nowhere.png", "there is no file 'nowhere.png'"),
    ],
)
def test_pictures_that_are_none_are_refused(tiny: Any, image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fe.edit(tiny, image, **SHORT)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((40, 40), 255, np.uint8), "the mask is 40x40 and the picture 48x35"),
        (np.eye(35, 48, dtype=np.uint8), "the mask is black all over"),
        (Image.new("RGBA", (48, 35), (255, 255, 255, 128)), "the mask is transparent in places"),
        ("nowhere.png", "the mask cannot be used: there is no file 'nowhere.png'"),
        (True, "the mask cannot be used: .* got bool"),
    ],
)
def test_masks_that_are_none_are_refused(tiny: Any, photo: Path, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fe.edit(tiny, photo, **SHORT, mask=mask)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "cpu"}, "device='cpu' cannot be had of a pipeline object"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16' cannot be had"),
        ({"quantise": "int8"}, "quantise='int8' cannot be had"),
        ({"low_memory": True}, "low_memory=True cannot be had"),
        ({"options": {"exact_tme": False}}, "did you mean exact_time"),
        ({"kind": "scenes"}, "ScenesLoader makes no model of a pipeline object"),
    ],
)
def test_what_a_pipeline_object_cannot_be_given_is_refused(
    tiny_pipeline: Callable[..., Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fe.load_model(tiny_pipeline(guided=True), **given)


def test_models_that_are_none_are_refused(tiny_unet: Callable[[], Any], tiny: Any, photo: Path) -> None:
    with pytest.raises(ValueError, match=r'kind="instaflow" or kind="sd15"'):
        fe.load_model(tiny_unet())
    with pytest.raises(ValueError, match="a model is a name, a folder, a hub id or a diffusers pipeline, got int"):
        fe.load_model(3)
    with pytest.raises(LookupError, match="did you mean scenes"):
        fe.edit("sceens", photo, **SHORT)
    with pytest.raises(ValueError, match=r"the model is loaded already; give load_model its options \(exact_time\)"):
        fe.edit(tiny, photo, **SHORT, options={"model.exact_time": False})
    assert isinstance(fe.load_model(tiny.pipeline, options={"exact_time": False}), FluxModel)
    with pytest.raises(ValueError, match="target is missing"):
        fe.edit(tiny, photo, source="a star")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": 3}, "source must be text or None, got 3"),
        ({"editor": 3}, "the editor must be a name, or an object of a class that extends Editor, got 3"),
        ({"solver": Euler}, "the solver must be a name, or an object of a class that extends Solver, got <class"),
        ({"steps": 2.5}, "steps must be a whole number or None, got 2.5"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"preset": ["flowedit@flux"]}, "preset must be text or None"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"options": "flowedit.n_max=3"}, "options must be a mapping or None"),
        ({"side": "64"}, "side must be a whole number or None, got '64'"),
        ({"side": 3}, "needs at least 4 pixels on each side, got the side 3"),
        ({"side": -8}, "needs at least 4 pixels on each side, got the side -8"),
        ({"keep_path": "yes"}, "keep_path must be true or false, got 'yes'"),
    ],
)
def test_arguments_of_other_types_are_refused(tiny: Any, photo: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fe.edit(tiny, photo, **SHORT | given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "64x64"}, r"size must be \(a whole number, a whole number\) or None, got '64x64'"),
        ({"size": (100_000, 100_000)}, "the size 100000x100000 is too much for one go"),
        ({"noise": np.zeros((4, 8, 8))}, r"noise must be a tensor \(C, h, w\), .* got ndarray"),
        ({"noise": torch.zeros(1, 4, 8, 8)}, r"noise must be a tensor \(C, h, w\), .* got \(1, 4, 8, 8\)"),
        ({"guidance": "3.5"}, "guidance must be a number, got '3.5'"),
        ({"prompt": None}, "prompt must be text, got None"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(tiny: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fe.generate(tiny, **{"prompt": "a star", "steps": 1} | given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        ({"dtype": 16}, "dtype must be one of float32, bfloat16, float16, got '16'"),
        ({"device": "gpu"}, "'gpu' is no device; use auto, cpu, cuda, cuda:1 or mps"),
        ({"kind": "flx"}, "unknown model 'flx'; did you mean flux"),
        ({"options": 3}, "options must be a mapping or None, got 3"),
        ({"compiled": "yes"}, "compiled must be true or false"),
    ],
)
def test_models_that_cannot_be_had_so_are_refused(tiny_folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, LookupError), match=message):
        fe.load_model(tiny_folder, **given)
