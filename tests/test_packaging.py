"""What is installed: the list of packages, the wheel's content, and a copy that runs on its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = {"tests", "results", "docs", "build", "dist"}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = SETTINGS["tool"]["setuptools"]["packages"]


def folder_of(package: str) -> Path:
    return ROOT.joinpath(*package.split(".")[1:])


def test_the_list_of_packages_is_the_folders_with_an_init() -> None:
    found = {"fe"}
    for init in ROOT.rglob("__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if parts and parts[0] not in NOT_SHIPPED and not parts[0].startswith("."):
            found.add(".".join(("fe", *parts)))
    assert sorted(found) == sorted(PACKAGES)


def test_no_folder_of_code_lacks_an_init() -> None:
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).parts
        if len(parts) > 1 and parts[0] not in NOT_SHIPPED and not parts[0].startswith("."):
            assert (file.parent / "__init__.py").exists(), file


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built through a source distribution, as for a release, from a copy that holds an old build as well."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for file in ("pyproject.toml", "README.md", "LICENSE", "py.typed", *(path.name for path in ROOT.glob("*.py"))):
        shutil.copy(ROOT / file, source)
    for package in PACKAGES[1:]:
        shutil.copytree(folder_of(package), source / folder_of(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    (source / "tests" / "test_nothing.py").touch()
    (source / "build" / "lib" / "fe").mkdir(parents=True)
    (source / "build" / "lib" / "fe" / "stale.py").touch()
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(source)], place)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_every_module_and_every_weight(names: set[str]) -> None:
    wanted = {f"fe/{file.name}" for file in ROOT.glob("*.py")}
    for package in PACKAGES[1:]:
        wanted |= {f"fe/{file.relative_to(ROOT).as_posix()}" for file in folder_of(package).glob("*.py")}
    weights = {f"fe/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "scenes" / "weights").rglob("*") if file.is_file()}
    assert any(name.endswith("model_index.json") for name in weights)
    shipped = {name for name in names if name.startswith("fe/")}
    assert shipped == wanted | weights | {"fe/py.typed"}


def test_the_wheel_puts_nothing_else_into_site_packages(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    version = SETTINGS["project"]["version"]
    assert tops == {"fe", f"fe_toolkit-{version}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_is_small_enough(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        weights = [entry.file_size for entry in archive.infolist() if "/weights/" in entry.filename]
    assert max(weights) <= 15 * 2**20
    assert sum(weights) <= 25 * 2**20


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed by pip, to stand before everything else on the path."""
    place = tmp_path_factory.mktemp("site")
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(place), str(wheel)],
        place,
    )
    return place


def test_the_installed_copy_runs_on_its_own(site: Path, tmp_path: Path) -> None:
    origin = run([sys.executable, "-c", "import fe; print(fe.__file__)"], tmp_path, PYTHONPATH=str(site))
    assert Path(origin.strip()).is_relative_to(site)
    script = str(site / "bin" / "fe")
    assert "compare" in run([script, "--help"], tmp_path, PYTHONPATH=str(site))
    assert "fireflow" in run([script, "list", "solvers"], tmp_path, PYTHONPATH=str(site))


def test_the_installed_copy_draws_with_the_weights_it_brought(site: Path, tmp_path: Path) -> None:
    said = run(
        [str(site / "bin" / "fe"), "generate", "--prompt", "a large red star", "--steps", "1"], tmp_path, PYTHONPATH=str(site)
    )
    assert "1 calls, 1 rows" in said
    assert len(list(tmp_path.rglob("*.png"))) == 1
