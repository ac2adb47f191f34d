"""Reading pictures: every odd kind of file is converted rightly and says so, or is refused in one sentence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fe.cases.pictures import Picture, fitted, put, read, write
from PIL import Image

GREEN = (10, 200, 30)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def plain(width: int = 32, height: int = 24) -> Image.Image:
    return Image.new("RGB", (width, height), GREEN)


def ramp16(width: int = 64, height: int = 32) -> np.ndarray:
    """Values 0..65535 rising to the right: clipping to 8 bits would make nearly all of it white."""
    return np.tile(np.linspace(0, 65535, width).round().astype(np.uint16), (height, 1))


def png16(path: Path, values: np.ndarray) -> Path:
    """A 16-bit RGB PNG written by hand, as Pillow cannot write one. `values`: (H, W, 3) uint16."""
    height, width, _ = values.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def test_plain_picture_comes_through_bit_for_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    picture = read(saved(tmp_path / "a.png", Image.fromarray(values)))
    assert picture.notes == ()
    assert picture.pixels.dtype == torch.float32
    assert np.array_equal((picture.pixels * 255).round().permute(1, 2, 0).numpy().astype(np.uint8), values)


def test_sixteen_bit_greyscale_is_scaled_not_clipped(tmp_path: Path) -> None:
    picture = read(saved(tmp_path / "a.png", Image.fromarray(ramp16())))
    assert torch.allclose(picture.pixels[0, 0], torch.linspace(0, 1, 64), atol=1e-4)
    assert torch.equal(picture.pixels[0], picture.pixels[2])
    assert "16-bit" in picture.notes[0]


def test_sixteen_bit_tiff_greyscale_is_scaled(tmp_path: Path) -> None:
    picture = read(saved(tmp_path / "a.tiff", Image.fromarray(ramp16())))
    assert torch.allclose(picture.pixels[1, 0], torch.linspace(0, 1, 64), atol=1e-4)


def test_sixteen_bit_colour_is_scaled_and_said(tmp_path: Path) -> None:
    values = np.stack([ramp16(), ramp16()[:, ::-1], np.zeros_like(ramp16())], axis=2)
    picture = read(png16(tmp_path / "a.png", values))
    assert torch.allclose(picture.pixels[0, 0], torch.linspace(0, 1, 64), atol=1 / 200)
    assert torch.allclose(picture.pixels[1, 0], torch.linspace(1, 0, 64), atol=1 / 200)
    assert picture.notes == ("16 bits a channel scaled to 8",)


def test_cmyk_is_converted_and_said(tmp_path: Path) -> None:
    picture = read(saved(tmp_path / "a.jpg", plain().convert("CMYK"), quality=95))
    assert torch.allclose(picture.pixels.mean(dim=(1, 2)) * 255, torch.tensor(GREEN).float(), atol=4)
    assert "CMYK" in picture.notes[0]


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    picture = read(saved(tmp_path / "a.png", Image.new("RGBA", (16, 16), (255, 0, 0, 51))))
    assert torch.allclose(picture.pixels[:, 0, 0], torch.tensor([1.0, 0.8, 0.8]), atol=0.01)
    assert "white" in picture.notes[0]


@pytest.mark.parametrize("transparent", [True, False])
def test_palette_pictures_keep_their_colours(tmp_path: Path, transparent: bool) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*GREEN, 0, 0, 255])
    image.putpixel((0, 0), 1)
    options = {"transparency": 1} if transparent else {}
    picture = read(saved(tmp_path / "a.png", image, **options))
    assert torch.allclose(picture.pixels[:, 5, 5] * 255, torch.tensor(GREEN).float(), atol=1)
    assert bool(picture.notes) == transparent
    if transparent:
        assert torch.equal(picture.pixels[:, 0, 0], torch.ones(3))


def test_animation_uses_its_first_frame_and_says_so(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    picture = read(saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]))
    assert torch.allclose(picture.pixels[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]), atol=0.01)
    assert picture.notes == ("has 3 frames, the first is used",)


def test_exif_rotation_is_applied_and_said(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 16), "black")
    image.paste((255, 255, 255), (0, 0, 16, 16))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the left is the top
    picture = read(saved(tmp_path / "a.jpg", image, exif=exif, quality=95))
    assert picture.pixels.shape == (3, 32, 16)
    assert picture.pixels[:, :12].min() > 0.9
    assert picture.pixels[:, 20:].max() < 0.1
    assert "EXIF" in picture.notes[0]


def test_greyscale_and_one_bit_are_three_equal_channels(tmp_path: Path) -> None:
    for mode in ("L", "1"):
        picture = read(saved(tmp_path / f"{mode}.png", Image.new(mode, (16, 16), 1)))
        assert picture.pixels.shape == (3, 16, 16)
        assert torch.equal(picture.pixels[0], picture.pixels[1])


def truncated(folder: Path, suffix: str) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = saved(folder / f"whole.{suffix}", Image.fromarray(noise)).read_bytes()
    path = folder / f"half.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"cut short|damaged|no picture"):
        read(truncated(tmp_path, suffix))


def test_every_header_cut_is_refused_and_never_a_bug(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.png", plain()).read_bytes()
    end = whole.index(b"IEND") - 12  # before the checksum of the last pixels
    for length in range(1, end):
        path = tmp_path / "cut.png"
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.png"):
            read(path)


def test_refusals_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture at all")
    saved(tmp_path / "long.png", plain(20000, 10))
    saved(tmp_path / "float.tiff", Image.new("F", (16, 16), 0.5))
    cases = {
        "missing.png": "there is no file",
        "empty.png": "empty",
        "text.png": "no picture",
        "long.png": "20000x10.*8 times",
        "float.tiff": "no agreed range",
        ".": "not a file",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            read(tmp_path / name)
        assert str(caught.value).count(". ") == 0


def test_a_small_file_with_very_many_pixels_is_refused_before_decoding(tmp_path: Path) -> None:
    for side in (9000, 40000):
        head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        body = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
        data = zlib.compress(b"")
        rest = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body + rest)
        with pytest.raises(ValueError, match="pixels"):
            read(tmp_path / "bomb.png")


def test_fitting_cuts_the_middle_to_the_multiple() -> None:
    pixels = torch.arange(20 * 35, dtype=torch.float32).reshape(1, 20, 35).expand(3, 20, 35) / 700
    fit = fitted(Picture(pixels), 16)
    assert torch.equal(fit.pixels, pixels[:, 2:18, 1:33])
    assert fit.notes == ("the middle 32x16 of 35x20 is used",)


def test_fitting_leaves_a_fitting_picture_alone() -> None:
    picture = Picture(torch.rand(3, 64, 64))
    assert fitted(picture, 16, 64, square=True) is picture


def test_fitting_to_a_square_resizes_then_cuts() -> None:
    left, right = torch.zeros(3, 128, 128), torch.ones(3, 128, 128)
    fit = fitted(Picture(torch.cat((left, right), dim=2)), 16, 64, square=True)
    assert fit.pixels.shape == (3, 64, 64)
    assert fit.pixels[:, :, :30].abs().max() < 0.02
    assert (fit.pixels[:, :, 34:] - 1).abs().max() < 0.02
    assert [note.split()[0] for note in fit.notes] == ["resized", "the"]


def test_fitting_refuses_what_a_model_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"1x1.*at least 16 pixels"):
        fitted(Picture(torch.rand(3, 1, 1)), 16, 64, square=True)
    with pytest.raises(ValueError, match="--side"):
        fitted(Picture(torch.zeros(3, 3000, 2000)), 16)
    assert fitted(Picture(torch.zeros(3, 3000, 2000)), 16, 1024).pixels.shape == (3, 1536, 1024)


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.png"
    write(torch.full((3, 8, 8), 0.5), target)
    before = target.read_bytes()
    assert torch.allclose(read(target).pixels, torch.full((3, 8, 8), 128 / 255))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        put(plain(), target)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
