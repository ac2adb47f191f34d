"""Ten thousand pictures fit: listing them reads headers alone, and what is looked at is not kept."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from fe.cases.base import Stored
from fe.cases.folder import FolderCases, Line
from fe.cases.pictures import Picture, fitted, fitted_size, read, size_of
from fe.experiments.compare import prepare
from fe.experiments.plan import planned
from fe.experiments.words import Asked, CaseChoice
from fe.models.base import Setup
from PIL import Image, ImageFile

ROWS = 10_000
SIDE = 256


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 10,000 pictures: three files, each under thousands of names."""
    folder = tmp_path_factory.mktemp("many")
    noise = np.random.default_rng(0)
    for i in range(ROWS):
        if i < 3:
            values = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(values).save(folder / f"{i}.png", compress_level=1)
        else:
            os.link(folder / f"{i % 3}.png", folder / f"{i}.png")
    lines = [f"{i}.png,a cat number {i},a dog number {i}\n" for i in range(ROWS)]
    (folder / "prompts.csv").write_text("picture,source,target\n" + "".join(lines))
    return folder


def test_ten_thousand_are_listed_quickly_and_without_a_pixel(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("pixels were read"))
        started = time.perf_counter()
        cases = FolderCases(path=str(many)).take(None)
        seconds = time.perf_counter() - started
    assert len(cases) == ROWS
    assert cases[-1].shape == (3, SIDE, SIDE)
    assert seconds < 20  # one or two on a machine that does nothing else
    assert torch.equal(cases[4].picture, read(many / "1.png").pixels)


def test_the_memory_of_a_listing_is_that_of_its_text(many: Path) -> None:
    tracemalloc.start()
    try:
        cases = FolderCases(path=str(many)).take(None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cases) == ROWS
    assert peak < 10_000 * ROWS  # bytes; the pixels of one of these pictures are 786,432


def test_few_of_what_is_looked_at_stay(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going over all pictures keeps no more of them than `Stored` promises, and looking for faults keeps none."""
    alive: set[int] = set()
    most = 0
    plain = FolderCases._read_picture

    class Watched(torch.Tensor):
        def __del__(self) -> None:
            alive.discard(id(self))

    def counted(cases: FolderCases, line: Line, size: tuple[int, int]) -> torch.Tensor:
        nonlocal most
        found: torch.Tensor = plain(cases, line, size).as_subclass(Watched)
        alive.add(id(found))
        most = max(most, len(alive))
        return found

    monkeypatch.setattr(FolderCases, "_read_picture", counted)
    faults = FolderCases(path=str(many)).faults()
    assert [next(faults) for _ in range(100)] == [None] * 100
    assert 0 < most <= 2
    for case in FolderCases(path=str(many)).take(100):
        _ = case.picture
    assert 2 < most <= 33


def test_lines_of_one_picture_share_it(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = [f"a.png,x,y{i},{i}\n" for i in range(50)]
    (tmp_path / "prompts.csv").write_text("picture,source,target,id\n" + "".join(lines))
    cases = FolderCases(path=str(tmp_path)).take(None)
    assert len({case.id for case in cases}) == 50
    assert len({case.content for case in cases}) == 1
    assert isinstance(cases[0].content, Stored)


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_the_size_from_the_header_is_that_of_the_picture(tmp_path: Path, name: str, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", (37, 20), "red").save(tmp_path / name, exif=exif)
    assert size_of(tmp_path / name) == tuple(read(tmp_path / name).pixels.shape[1:])
    assert size_of(tmp_path / name) == ((37, 20) if (orientation or 1) > 4 else (20, 37))


def test_what_a_header_keeps_back_is_refused_when_the_picture_is_read(tmp_path: Path) -> None:
    """PNG may say after the pixels that they lie on their side."""
    Image.new("RGB", (37, 20)).save(tmp_path / "late.png")
    content, exif = (tmp_path / "late.png").read_bytes(), Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\x00\x00")
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "late.png").write_bytes(content[:-12] + late + content[-12:])  # the last 12 bytes are the end's own chunk
    (tmp_path / "prompts.csv").write_text("picture,source,target\nlate.png,x,y\n")
    (case,) = FolderCases(path=str(tmp_path)).take(None)
    with pytest.raises(ValueError, match=r"prompts\.csv, line 2: .*says that it is 37x20 and turns out as 20x37"):
        _ = case.picture


@pytest.mark.parametrize("height", [8, 17, 40])
@pytest.mark.parametrize("width", [9, 23, 64])
@pytest.mark.parametrize("multiple", [1, 8, 16])
@pytest.mark.parametrize(("side", "square"), [(0, False), (8, False), (33, False), (33, True)])
def test_the_size_that_is_foretold_comes(height: int, width: int, multiple: int, side: int, square: bool) -> None:
    def came() -> tuple[int, ...]:
        return tuple(fitted(Picture(torch.zeros(3, height, width)), multiple, side, square).pixels.shape[1:])

    if min(height, width) < multiple or 0 < side < multiple:
        with pytest.raises(ValueError, match="needs at least"):
            fitted_size(height, width, multiple, side, square)
        with pytest.raises(ValueError, match="needs at least"):
            came()
    else:
        assert fitted_size(height, width, multiple, side, square) == came()


def test_a_comparison_is_prepared_without_keeping_pixels(
    tmp_path: Path, tiny_scenes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of another size than the model's are fitted when they are looked at, and each is read a few times at most."""
    Image.new("RGB", (96, 80)).save(tmp_path / "a.png")
    rows = [f"a{i}.png,a red star,a blue star\n" for i in range(60)]
    for i in range(60):
        os.link(tmp_path / "a.png", tmp_path / f"a{i}.png")
    (tmp_path / "prompts.csv").write_text("picture,source,target\n" + "".join(rows))
    reads = 0
    plain = FolderCases._read_picture

    def counted(cases: FolderCases, line: Line, size: tuple[int, int]) -> torch.Tensor:
        nonlocal reads
        reads += 1
        return plain(cases, line, size)

    monkeypatch.setattr(FolderCases, "_read_picture", counted)
    asked = Asked(solvers=("euler",), editors=("no-edit",), steps=(1,), cases=CaseChoice.read(f"folder:{tmp_path}"))
    plan, _ = planned(asked, tiny_scenes, Setup(device="cpu"), {})
    with pytest.warns(UserWarning, match="resized"):
        prepared = prepare(plan)
    assert len(prepared.cases) == 60
    assert all(isinstance(case.content, Stored) for case in prepared.cases)
    assert {case.shape for case in prepared.cases} == {(3, 64, 64)}
    assert reads <= 2 * 60
