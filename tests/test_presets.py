"""Methods as published: they build, they cost what is published, and what is said beside them goes before them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.experiments.methods import choose
from fe.experiments.names import build_editor, build_solver
from fe.experiments.presets import PRESETS, find_preset
from fe.experiments.probe import probe
from fe.models.mixture import MixtureModel
from fe.registry import RegistryError
from fe.solvers.fireflow import FireFlow


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_says_where_it_is_from(name: str) -> None:
    preset = find_preset(name)
    method, _, source = name.partition("@")
    assert method
    assert source
    assert preset.paper
    assert preset.family
    for steps in (1, 4, preset.steps, 3 * preset.steps):
        build_editor(preset.editor, preset.options_for(steps))
    build_solver(preset.solver)
    assert preset.options_for(preset.steps) == dict(preset.options)


@pytest.mark.parametrize(
    ("name", "rows"), [("flowedit@flux", 48), ("flowedit@sd3", 66), ("flowedit@2rf", 41), ("flowedit@flux-style", 28)]
)
def test_a_preset_costs_what_is_published(name: str, rows: int) -> None:
    """Evaluations, of which guidance may make two rows each: 24, 33, 20 and 7 steps of two, and 0, 0, 1 and 14 of one."""
    way = choose(preset=name)
    assert isinstance(way.editor, FlowEdit)
    unguided = replace(way.editor, source_guidance=1.0, target_guidance=1.0)
    assert probe(unguided, way.solver, way.steps, MixtureModel(), ("source", "target")).rows == rows


def test_options_that_count_steps_keep_their_share() -> None:
    style = find_preset("flowedit@flux-style")
    assert style.options_for(56) == dict(style.options) | {"n_max": "42", "n_min": "28"}
    assert find_preset("fireflow@paper-8").options_for(2)["inject"] == "1"  # never none of what a preset has some of
    assert find_preset("flowedit@2rf").options_for(5) == dict(find_preset("flowedit@2rf").options) | {
        "n_max": "4",
        "n_min": "1",
    }


def test_what_is_said_goes_before_the_preset() -> None:
    plain = choose(preset="fireflow@paper-8")
    assert (plain.editor, plain.solver, plain.steps) == (Injection(), FireFlow(), 8)
    assert plain.name == "fireflow@paper-8"
    changed = choose(preset="fireflow@paper-8", steps=16, solver="euler", options={"injection.inject": 3})
    assert (changed.editor, changed.steps, changed.name) == (Injection(inject=3), 16, "fireflow@paper-8-euler-16")
    assert choose(preset="fireflow@paper-8", steps=16).editor == Injection(inject=2)


def test_what_does_not_fit_a_preset_is_refused() -> None:
    with pytest.raises(RegistryError, match=r"unknown preset 'flowedit@flx'; did you mean flowedit@flux"):
        choose(preset="flowedit@flx")
    with pytest.raises(ValueError, match="is of the editor 'flowedit'; leave out the editor, or the preset"):
        choose(editor="injection", preset="flowedit@flux")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        choose(preset="flowedit@flux", steps=0)
