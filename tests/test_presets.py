"""Methods as published: they build, they cost what is published, and what is said beside them goes before them."""

from __future__ import annotations

from typing import Any

import fe
import pytest
from fe.editors.injection import Injection
from fe.experiments.methods import choose
from fe.experiments.names import build_editor, build_solver
from fe.experiments.presets import PRESETS, find_preset
from fe.experiments.probe import probe
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


FLUX_ROWS = {
    "flowedit@flux": 48,
    "flowedit@flux-style": 28,  # 7 steps of two, 14 of one
    "fireflow@paper-8": 18,
    "fireflow@paper-15": 32,
    "rf-inversion@paper": 56,
    "uni-edit@paper": 28,
    "uni-edit@paper-0.8": 37,
    "dnaedit@flux": 48,
    "steerflow@flux": 31,
    "sdedit@flux": 21,
}
SD3_ROWS = {
    "flowedit@sd3": 132,
    "flowedit@sd3-style": 94,  # 16 steps of four, 15 of two
    "flowalign@paper": 99,
    "dnaedit@sd3.5": 81,
    "steerflow@sd3": 91,
    "ftedit@paper": 180,
    "dvrf@paper": 200,
    "sdedit@sd3": 40,
}


def rows(name: str, model: Any) -> int:
    way = choose(preset=name)
    return int(probe(way.editor, way.solver, way.steps, model, ("a star", "a heart")).rows)


def test_presets_cost_what_is_published(tiny_pipeline: Any, tiny_sd3: Any, tiny_unet: Any) -> None:
    """Rows at the network, guidance included, as counted in the public codes (less what they evaluate and throw away)."""
    flux, sd3, unet = (
        fe.load_model(tiny_pipeline(guided=True)),
        fe.load_model(tiny_sd3()),
        fe.load_model(tiny_unet(), kind="2rf"),
    )
    assert {name: rows(name, flux) for name in FLUX_ROWS} == FLUX_ROWS
    assert {name: rows(name, sd3) for name in SD3_ROWS} == SD3_ROWS
    assert rows("flowedit@2rf", unet) == 82  # 20 steps of four, one of two
    way = choose(preset="rf-edit@paper", options={"injection.first_block": 0})  # toys have no blocks 20 to 37
    assert probe(way.editor, way.solver, way.steps, flux, ("a star", "a heart")).rows == 60
    assert {*FLUX_ROWS, *SD3_ROWS, "flowedit@2rf", "rf-edit@paper"} == set(PRESETS)


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
