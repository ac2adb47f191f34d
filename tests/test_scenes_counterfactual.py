"""Edits and their truth: one attribute changes, the rest stays, and only what the source shows is scored."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from fe.scenes.attributes import KINDS, RANGES, Nuisance, Scene
from fe.scenes.counterfactual import DRAWS, SEEDS, EditCase, edit_case, possible_nuisances
from fe.scenes.data import TRAIN_SEED
from fe.scenes.render import render
from fe.scenes.train_judge import JUDGE_SEED

torch.set_num_threads(1)

NUISANCE = Nuisance.from_seed(11)


def _case(source: Scene, kind: str, value: str) -> EditCase:
    return EditCase("test", 0, 11, kind, source, source.edited(kind, value), NUISANCE)


def _object(*scenes: Scene) -> torch.Tensor:
    """Where any of these scenes has its object, with a pixel to spare: (1, 64, 64), bool."""
    plain = [Scene(s.shape, "red", s.size, s.position, "blue", "plain") for s in scenes]
    pictures = render(plain, [NUISANCE] * len(plain))
    touched = ((pictures - pictures[:, :, :1, :1]).abs().amax(dim=(0, 1)) > 1e-4).float()
    return torch.nn.functional.max_pool2d(touched[None], 3, stride=1, padding=1) > 0


def test_kinds_take_turns_and_can_be_asked_for() -> None:
    counts = Counter(edit_case("test", index).kind for index in range(60))
    assert counts == dict.fromkeys(KINDS, 10)
    assert edit_case("test", 3, "colour") == edit_case("test", 3 * len(KINDS) + 1)
    assert edit_case("test", 5) == edit_case("test", 5) != edit_case("development", 5)


@pytest.mark.parametrize("index", range(24))
def test_exactly_one_attribute_differs(index: int) -> None:
    case = edit_case("development", index)
    differing = [kind for kind in KINDS if getattr(case.source, kind) != getattr(case.target, kind)]
    assert differing == [case.kind]
    assert case.source_caption != case.target_caption
    assert case.picture().shape == case.truth().shape == (3, 64, 64)
    assert case.determined().shape == (1, 64, 64)


def test_splits_and_training_share_no_seed() -> None:
    ends = [*(r for seeds in SEEDS.values() for r in (seeds.start, seeds.stop)), TRAIN_SEED - 1, JUDGE_SEED]
    assert ends == sorted(ends)
    assert edit_case("test", 0).name == "scenes/test/000000-shape"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", 0), "split 'train'"),
        (("test", -1), "case -1"),
        (("test", 10**6), "out of range"),
        (("test", 0, "x"), "kind 'x'"),
    ],
)
def test_bad_cases_are_refused(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edit_case(*arguments)  # type: ignore[arg-type]


def test_colour_edits_leave_the_background_alone_and_background_edits_the_object() -> None:
    star = Scene("star", "red", "large", "left", "blue", "dotted")
    colour, background = _case(star, "colour", "green"), _case(star, "background", "green")
    assert torch.equal(colour.picture() * ~_object(star), colour.truth() * ~_object(star))
    inside = (render([Scene("star", "red", "large", "left", "green", "plain")], [NUISANCE])[0] - background.picture()).abs()
    core = (inside.amax(dim=0) < 1e-6)[None] & _object(star)
    assert core.sum() > 100
    assert torch.equal(background.picture() * core, background.truth() * core)
    assert colour.determined().all()
    assert background.determined().all()


def test_a_plain_background_does_not_tell_its_stripes() -> None:
    plain = Scene("star", "red", "large", "left", "blue", "plain")
    determined = _case(plain, "pattern", "striped").determined()
    assert not (determined & ~_object(plain)).any()
    assert determined.sum() > 100  # the star itself


def test_stripes_tell_everything_that_plain_needs_but_not_the_rows_of_dots() -> None:
    striped = Scene("star", "red", "large", "left", "blue", "striped")
    assert _case(striped, "pattern", "plain").determined().all()
    dots = _case(striped, "pattern", "dotted").determined() & ~_object(striped)
    background = int((~_object(striped)).sum())
    assert 0 < int(dots.sum()) < background  # between the columns of dots there is light at any phase
    assert _case(striped, "shape", "heart").determined().all()


def test_a_checkerboard_moved_by_half_a_period_is_the_same() -> None:
    checkered = Scene("star", "red", "large", "left", "blue", "checkered")
    others = possible_nuisances(checkered, NUISANCE, 11, DRAWS)
    pictures = render([checkered] * (DRAWS + 1), [NUISANCE, *others])
    assert (pictures - pictures[:1]).abs().max() < 1e-4
    stripes = _case(checkered, "pattern", "striped").determined() & ~_object(checkered)
    assert stripes.float().mean() < 0.02  # light and dark stripes may be the other way round
    assert _case(checkered, "shape", "heart").determined().float().mean() > 0.99


def test_a_circle_does_not_tell_its_turn_but_a_star_becomes_a_circle_surely() -> None:
    circle = Scene("circle", "red", "large", "left", "blue", "dotted")
    star = Scene("star", "red", "large", "left", "blue", "dotted")
    undetermined = ~_case(circle, "shape", "star").determined()
    assert undetermined.any()
    assert not (undetermined & ~_object(circle)).any()
    assert (_case(circle, "shape", "star").determined() & _object(star)).sum() > 100
    assert _case(star, "shape", "circle").determined().all()
    assert _case(circle, "shape", "ring").determined().all()


@pytest.mark.parametrize("index", range(60))
def test_guesses_show_the_same_source_picture(index: int) -> None:
    case = edit_case("test", index)
    guesses = possible_nuisances(case.source, case.nuisance, case.seed, 4)
    pictures = render([case.source] * (len(guesses) + 1), [case.nuisance, *guesses])
    assert (pictures - pictures[:1]).abs().max() < 1e-4
    assert all(low <= getattr(g, name) <= high for g in guesses for name, (low, high) in RANGES.items())
