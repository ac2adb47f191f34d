"""Captions, vocabulary and the bounds of a scene."""

from __future__ import annotations

import random

import pytest
from fe.scenes.attributes import COLOURS, KINDS, RANGES, SHAPES, VOCABULARY, Nuisance, Scene, parse, words
from fe.scenes.counterfactual import draw_scene

STAR = Scene("star", "red", "large", "left", "blue", "striped")


def test_caption_reads_as_written() -> None:
    assert STAR.caption() == "a large red star at the left on a striped blue background"


def test_captions_round_trip_and_stay_in_the_vocabulary() -> None:
    generator = random.Random(0)
    for _ in range(200):
        scene = draw_scene(generator)
        assert parse(scene.caption()) == scene
        assert set(words(scene.caption())) <= set(VOCABULARY)


def test_parse_forgives_case_spaces_and_a_full_stop() -> None:
    assert parse("  A large red  STAR at the left on a striped blue background. ") == STAR


@pytest.mark.parametrize("caption", ["", "a red star", "a large red star at the left on a striped red background"])
def test_parse_refuses(caption: str) -> None:
    with pytest.raises(ValueError, match=r"does not read|cannot have"):
        parse(caption)


def test_impossible_scenes_name_what_would_do() -> None:
    with pytest.raises(ValueError, match="shape 'blob' is unknown; it must be one of circle"):
        Scene("blob", "red", "large", "left", "blue", "plain")
    with pytest.raises(ValueError, match="background's colour"):
        STAR.edited("colour", "blue")
    with pytest.raises(ValueError, match="edit kind 'mood'"):
        STAR.edited("mood", "blue")


def test_edited_changes_one_attribute() -> None:
    assert STAR.edited("shape", "heart") == Scene("heart", "red", "large", "left", "blue", "striped")
    assert KINDS == ("shape", "colour", "size", "position", "background", "pattern")


def test_vocabulary_is_closed_and_without_repeats() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert words("A Star, at-the; left!") == ["a", "star", "at-the", "left"]


def test_nuisances_follow_their_seed_and_ranges() -> None:
    assert Nuisance.from_seed(5) == Nuisance.from_seed(5) != Nuisance.from_seed(6)
    for seed in range(100):
        for name, (low, high) in RANGES.items():
            assert low <= getattr(Nuisance.from_seed(seed), name) <= high


def test_about_a_twentieth_is_held_out() -> None:
    scenes = [
        Scene(shape, colour, "small", "left", background, "plain")
        for shape in SHAPES
        for colour in COLOURS
        for background in COLOURS
        if colour != background
    ]
    assert 0.03 < sum(scene.held_out for scene in scenes) / len(scenes) < 0.07
