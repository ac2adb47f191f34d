"""The code that a class is made of: what counts as another, and what does not."""

from __future__ import annotations

import importlib
import linecache
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fe.experiments import sources
from fe.solvers.euler import Euler

HELPER = '"""What the editor draws on."""\n\nFACTOR = 1.0\n'


@dataclass
class Package:
    """A plug-in of three modules, of which the third is not imported."""

    root: Path

    def hash(self) -> str:
        """The hash of its class, as a fresh process would find it."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "fe_plugged"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        sources._read.clear()
        found: str = sources.hash_code(importlib.import_module("fe_plugged.solver").Mine)
        return found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    root = tmp_path / "fe_plugged"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "solver.py").write_text(
        "from fe.solvers.euler import Euler\n\nclass Mine(Euler):\n    def step(self, *given):\n"
        "        from .helper import FACTOR\n        return super().step(*given)\n"
    )
    (root / "helper.py").write_text(HELPER)
    (root / "other.py").write_text("FACTOR = 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return Package(root)


def test_the_code_of_a_class_is_all_that_it_imports_of_its_package(package: Package) -> None:
    first = package.hash()
    assert first
    (package.root / "helper.py").write_text(f"# a comment\n{HELPER.replace('What', 'That which')}\n\n")
    assert package.hash() == first
    (package.root / "other.py").write_text("FACTOR = 2.0\n")
    assert package.hash() == first
    (package.root / "helper.py").write_text(HELPER.replace("1.0", "1.5"))
    assert package.hash() != first


def test_the_code_of_a_class_is_all_that_it_imports_of_this_package(monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    """Here of the solvers' base, which the solver that the plug-in extends imports."""
    first, read = package.hash(), sources.read
    euler = sources.hash_code(Euler)

    def otherwise(name: str) -> Any:
        found = read(name)
        return found._replace(hash="another") if name == "fe.solvers.base" else found

    monkeypatch.setattr(sources, "read", otherwise)
    assert sources.hash_code(importlib.import_module("fe_plugged.solver").Mine) != first
    assert sources.hash_code(Euler) != euler
    assert sources.hash_code(int) == ""


def test_a_package_is_read_and_not_loaded(package: Package) -> None:
    """What is imported where a method needs it may be broken, or dear to load."""
    parts = package.root / "parts"
    parts.mkdir()
    (parts / "__init__.py").write_text('raise RuntimeError("this needs another machine")')
    (parts / "deep.py").write_text("FACTOR = 1.0\n")
    (package.root / "helper.py").write_text("from .parts.deep import FACTOR\n")
    first = package.hash()
    (parts / "deep.py").write_text("FACTOR = 2.0\n")
    assert package.hash() != first
    assert "fe_plugged.helper" not in sys.modules
    (parts / "deep.py").write_text("FACTOR is 1.0 of another language\n")
    assert package.hash() != first


@pytest.mark.parametrize("text", ["", "\ufeffFACTOR = 1.0\n", "# coding: latin-1\nFACTOR = 'é'\n"])
def test_a_module_is_the_same_loaded_or_not(package: Package, text: str) -> None:
    parts = package.root / "parts"
    parts.mkdir()
    (parts / "__init__.py").write_text(text, encoding="latin-1" if "latin" in text else "utf-8")
    (package.root / "helper.py").write_text("from . import parts\n")
    first = package.hash()
    loaded = importlib.import_module("fe_plugged.parts")
    assert sources.hash_code(sys.modules["fe_plugged.solver"].Mine) == first
    assert loaded.__name__ in sources._read
    assert sources._read[loaded.__name__][0] is loaded.__spec__


def test_a_module_that_is_loaded_again_is_read_again(package: Package) -> None:
    """As notebooks do it while a plug-in is written. Until then the old code runs, and the old hash stands."""
    first = package.hash()
    module, text = sys.modules["fe_plugged.solver"], (package.root / "solver.py").read_text()
    (package.root / "solver.py").write_text(text.replace("super()", "Euler()"))
    linecache.checkcache()
    assert sources.hash_code(module.Mine) == first
    assert sources.hash_code(importlib.reload(module).Mine) != first


MADE = """
from fe.solvers.euler import Euler

class Mine(Euler):
    scale = 2.0

    def step(self, slope, t0, t1, x, state):
        return super().step(slope, t0, t1, x * 3.0 if state in {"up", "down", "back"} else x, state)
"""


@pytest.mark.parametrize(
    ("then", "now"), [("3.0", "4.0"), ("scale = 2.0", "scale = 2.5"), ("* 3.0", "+ 3.0"), ("t0, t1", "t1, t0")]
)
def test_a_class_without_source_goes_by_what_was_compiled(then: str, now: str) -> None:
    def made(text: str) -> str:
        names: dict[str, Any] = {"__name__": "a_notebook"}
        exec(text, names)
        found: str = sources.hash_code(names["Mine"])
        return found

    first = made(MADE)
    assert first not in ("", sources.hash_code(Euler))
    assert made(f"# a comment\n{MADE}") == first
    assert made(MADE.replace(then, now)) != first
