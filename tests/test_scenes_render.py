"""The renderer: the same picture for the same seed, alone or in a batch, whole objects, and colours where they belong."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from fe.scenes.attributes import PATTERNS, SHAPES, Nuisance, Scene
from fe.scenes.counterfactual import draw_scene
from fe.scenes.data import HELD_OUT, draw_batch, scene_of
from fe.scenes.render import render, render_indices

torch.set_num_threads(1)

STILL = Nuisance(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 12.0)


def _batch(count: int) -> tuple[list[Scene], list[Nuisance]]:
    generator = random.Random(1)
    return [draw_scene(generator) for _ in range(count)], [Nuisance.from_seed(seed) for seed in range(count)]


def test_pictures_are_rgb_in_range_and_follow_the_seed() -> None:
    scenes, nuisances = _batch(32)
    pictures = render(scenes, nuisances)
    assert pictures.shape == (32, 3, 64, 64)
    assert pictures.dtype == torch.float32
    assert pictures.min() >= 0.0
    assert pictures.max() <= 1.0
    assert torch.equal(pictures, render(scenes, nuisances))


def test_a_picture_does_not_depend_on_its_batch() -> None:
    scenes, nuisances = _batch(24)
    together = render(scenes, nuisances)
    alone = torch.cat([render([scene], [nuisance]) for scene, nuisance in zip(scenes, nuisances, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0.0, atol=2e-6)


def test_no_scenes_give_no_pictures_and_unequal_counts_are_refused() -> None:
    assert render([], []).shape == (0, 3, 64, 64)
    with pytest.raises(ValueError, match="1 scenes and 0 nuisances"):
        render([Scene("star", "red", "large", "left", "blue", "plain")], [])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("position", ["left", "centre", "right"])
def test_the_largest_object_is_whole_at_every_place_and_turn(shape: str, position: str) -> None:
    scene = Scene(shape, "red", "large", position, "blue", "plain")
    side = {"left": -0.05, "centre": 0.0, "right": 0.05}[position]
    turns = [replace(STILL, x=side, y=y, rotation=turn, radius=0.03) for turn in (-15.0, 0.0, 15.0) for y in (-0.35, 0.0, 0.35)]
    pictures = render([scene] * len(turns), turns)
    middle = render([scene.edited("position", "centre")], [replace(STILL, radius=0.03)])
    background = middle[:, :, :1, :1]
    areas, area = (pictures - background).abs().sum(dim=(1, 2, 3)), (middle - background).abs().sum()
    assert (areas / area - 1.0).abs().max() < 0.005  # nothing is cut off


def test_large_objects_are_larger_and_places_are_ordered() -> None:
    def cover(size: str, position: str) -> torch.Tensor:
        picture = render([Scene("square", "red", size, position, "blue", "plain")], [STILL])[0]
        seen: torch.Tensor = (picture - picture[:, :1, :1]).abs().amax(dim=0) > 0.1
        return seen.float()

    assert cover("large", "centre").sum() > 2.0 * cover("small", "centre").sum()
    columns = torch.arange(64.0)
    centres = [
        float((cover("small", place).sum(dim=0) * columns).sum() / cover("small", place).sum())
        for place in ("left", "centre", "right")
    ]
    assert centres[0] + 10 < centres[1] < centres[2] - 10


def test_patterns_use_two_shades_of_the_background() -> None:
    for pattern in PATTERNS:
        picture = render([Scene("circle", "red", "small", "centre", "green", pattern)], [STILL])[0]
        edge = picture[:, :, :8]
        light = render([Scene("circle", "red", "small", "centre", "green", "plain")], [STILL])[0, :, 0, 0]
        share = edge / light[:, None, None]
        assert share.max() <= 1.0 + 1e-5
        assert (share.min() < 0.7) == (pattern != "plain")
        assert (share - share[:1]).abs().max() < 1e-4  # a darker shade of the same hue


def test_training_never_draws_a_held_out_combination() -> None:
    attributes, nuisances = draw_batch(2000, seed=7)
    assert not HELD_OUT[attributes[:, 0], attributes[:, 1], attributes[:, 4]].any()
    assert not (attributes[:, 1] == attributes[:, 4]).any()
    assert not any(scene_of(row).held_out for row in attributes[:200])
    again = draw_batch(2000, seed=7)
    assert torch.equal(attributes, again[0])
    assert torch.equal(nuisances, again[1])
    assert draw_batch(2000, seed=7, held_out=True)[0].shape == (2000, 6)
    assert render_indices(attributes[:4], nuisances[:4]).shape == (4, 3, 64, 64)
