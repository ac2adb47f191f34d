"""The house stands: imports go down the floors only, stay relative inside, never in a circle, and shadow nothing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import requires
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "files": 0,
    "ode": 0,
    "options": 0,
    "plain_yaml": 0,
    "registry": 0,
    "solvers": 1,
    "attention_hooks": 1,
    "scenes": 1,
    "cases": 2,
    "metrics": 3,
    "models": 3,
    "editors": 4,
    "experiments": 5,
    "reports": 6,
    "api": 7,
    "cli": 8,
}
PACKAGES = [path.parent.name for path in ROOT.glob("*/__init__.py")]
FILES = sorted(chain(ROOT.glob("*.py"), *((ROOT / package).rglob("*.py") for package in PACKAGES)))
Module = tuple[str, ...]


def module_of(file: Path) -> Module:
    """("solvers", "euler") for solvers/euler.py; ("solvers",) for solvers/__init__.py; () for the root."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(file): file for file in FILES}


def imports(file: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def targets(file: Path) -> Iterator[Module]:
    """The modules of this package that a file imports."""
    module = module_of(file)
    package = module if file.name == "__init__.py" else module[:-1]
    for node in imports(file):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            base = (*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield (*base, alias.name) if (*base, alias.name) in MODULES else base


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down_only(file: Path) -> None:
    module = module_of(file)
    if module == ():
        return  # the root names modules in strings and loads them on first use
    for target in targets(file):
        assert target in MODULES, f"{file} imports {'.'.join(target)}, which does not exist"
        assert FLOORS[target[0]] <= FLOORS[module[0]], f"{'.'.join(module)} (lower) imports {'.'.join(target)} (higher)"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_inside_the_package_are_relative(file: Path) -> None:
    for node in imports(file):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if isinstance(node, ast.Import) or node.level == 0:
            tops = {name.partition(".")[0] for name in names}
            assert not tops & {"fe", "tests", ROOT.name, *PACKAGES}, f"{file} line {node.lineno}"


def test_every_folder_has_a_floor() -> None:
    assert set(FLOORS) == {module[0] for module in MODULES if module}


def test_no_two_modules_import_each_other() -> None:
    graph = {module: {target for target in targets(file) if target != module} for module, file in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_nothing_shadows_the_standard_library_or_a_dependency() -> None:
    tops = {module[0] for module in MODULES if module} | {"tests", "docs", "results"}
    needed = {line.split(";")[0].split(">")[0].strip().replace("-", "_") for line in requires("fe-toolkit") or []}
    assert not tops & (sys.stdlib_module_names | needed | {"datasets", "evaluate", "tokenizers", "PIL"})


def test_the_root_loads_nothing() -> None:
    loaded = {
        name
        for node in imports(ROOT / "__init__.py")
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    assert loaded == {"importlib", "typing"}


def test_every_public_name_can_be_had() -> None:
    import fe

    for name in fe.__all__:
        assert getattr(fe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fe.nonsense


def test_the_floor_of_tables_needs_the_standard_library_only() -> None:
    for file in (ROOT / "registry.py", ROOT / "options.py", ROOT / "scenes" / "attributes.py"):
        for node in imports(file):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names) | {"__future__"}


def test_files_stay_small() -> None:
    long = {str(file.relative_to(ROOT)): n for file in FILES if (n := len(file.read_text().splitlines())) > 400}
    assert long == {}
