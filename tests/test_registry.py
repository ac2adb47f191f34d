"""The tables of names: built-ins, plug-ins as installed distributions, and what happens when they are at fault."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fe.registry import CASES, EDITORS, METRICS, MODELS, SOLVERS, RegistryError, Table
from fe.solvers.base import Solver
from fe.solvers.euler import Euler

GOOD = """
from fe.solvers.base import Step
from fe.solvers.base import Solver

class Good(Solver):
    order = 1
    def step(self, slope, t0, t1, x, state):
        return Step(x + (t1 - t0) * slope(t0, x), None)
    def nfe(self, steps):
        return steps

class Partial(Solver):
    order = 1
    def nfe(self, steps):
        return steps

class Stranger:
    pass

def function():
    pass
"""

Install = Callable[[str, str], None]


@pytest.fixture
def table() -> Table:
    """The solvers' table with nothing loaded yet."""
    return dataclasses.replace(SOLVERS, _loaded={})


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution on the path as pip would: install(distribution, "name = module:Attribute")."""
    (tmp_path / "fe_registry_good.py").write_text(GOOD)
    (tmp_path / "fe_registry_bad.py").write_text("raise RuntimeError('no licence found')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def put(distribution: str, entry: str) -> None:
        folder = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[fe.solvers]\n{entry}\n")

    return put


def refusal(table: Table, name: str) -> str:
    with pytest.raises(RegistryError) as error:
        table[name]
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", list(SOLVERS.builtin))
def test_every_built_in_solver_loads(name: str) -> None:
    assert issubclass(SOLVERS[name], Solver)
    assert SOLVERS.origin(name) == "built in"


def test_unknown_names_come_with_near_ones(table: Table) -> None:
    assert refusal(table, "firefow") == "unknown solver 'firefow'; did you mean fireflow?"
    assert "did you mean midpoint" in refusal(table, "mid-point")
    far = refusal(table, "qqqq")
    assert far.startswith("unknown solver 'qqqq'; known: ab2, alf, euler")


def test_names_are_sorted_and_counted(table: Table) -> None:
    assert list(table) == sorted(set(table))
    assert len(table) == len(list(table)) >= len(table.builtin)
    assert set(table.builtin) <= set(table)
    assert "euler" in table
    assert "eulr" not in table


def test_an_unknown_name_has_no_origin(table: Table) -> None:
    with pytest.raises(RegistryError, match="unknown solver 'eulr'; did you mean euler"):
        table.origin("eulr")


def test_a_plug_in_loads_beside_the_built_ins(table: Table, install: Install) -> None:
    before = len(table)
    install("fe-good", "good = fe_registry_good:Good")
    assert "good" in table
    assert "good" in list(table)
    assert len(table) == before + 1
    assert table["good"].__name__ == "Good"
    assert table["good"] is table["good"]
    assert table.origin("good") == "fe-good"
    assert refusal(table, "goood") == "unknown solver 'goood'; did you mean good?"


def test_a_plug_in_of_another_class_is_refused(table: Table, install: Install) -> None:
    install("fe-odd", "odd = fe_registry_good:Stranger")
    install("fe-call", "call = fe_registry_good:function")
    assert "'odd' of fe-odd (fe_registry_good:Stranger)" in refusal(table, "odd")
    assert "does not extend fe.solvers.base.Solver" in refusal(table, "odd")
    assert "does not extend fe.solvers.base.Solver" in refusal(table, "call")


def test_an_unfinished_plug_in_is_refused_with_what_it_lacks(table: Table, install: Install) -> None:
    install("fe-part", "part = fe_registry_good:Partial")
    assert refusal(table, "part").endswith("of fe-part (fe_registry_good:Partial) is not complete: it does not define step")


def test_a_built_in_cannot_be_replaced(table: Table, install: Install) -> None:
    install("fe-usurper", "euler = fe_registry_good:Good")
    text = refusal(table, "euler")
    assert "'euler' is built in and cannot be replaced by fe-usurper (fe_registry_good:Good)" in text
    assert table["midpoint"].__name__ == "Midpoint"
    assert list(table).count("euler") == 1


def test_two_plug_ins_with_one_name_are_both_named(table: Table, install: Install) -> None:
    install("fe-one", "twice = fe_registry_good:Good")
    install("fe-two", "twice = fe_registry_good:Partial")
    text = refusal(table, "twice")
    assert "claimed by two plug-ins: fe-one (fe_registry_good:Good) and fe-two (fe_registry_good:Partial)" in text
    assert "uninstall one" in text


@pytest.mark.parametrize("target", ["fe_registry_bad:Good", "fe_registry_nowhere:Good", "fe_registry_good:Absent"])
def test_a_plug_in_that_fails_to_import_is_named_and_the_rest_goes_on(table: Table, install: Install, target: str) -> None:
    install("fe-bad", f"bad = {target}")
    install("fe-good", "good = fe_registry_good:Good")
    assert f"'bad' of fe-bad ({target}) failed to import" in refusal(table, "bad")
    assert table["good"].__name__ == "Good"
    assert table["euler"] is Euler
    assert {"bad", "good", "euler"} <= set(table)


def test_the_fault_of_a_plug_in_is_told(table: Table, install: Install) -> None:
    install("fe-bad", "bad = fe_registry_bad:Good")
    assert "no licence found" in refusal(table, "bad")


def test_groups_do_not_mix(install: Install) -> None:
    install("fe-good", "good = fe_registry_good:Good")
    assert all("good" not in table for table in (EDITORS, MODELS, METRICS, CASES))


def test_listing_names_imports_no_torch() -> None:
    code = "import sys, fe; list(fe.SOLVERS); 'euler' in fe.SOLVERS; fe.SOLVERS.suggest('x'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
