"""The package in Python: equal to the command line, whatever form model and picture come in, and gone without a trace."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fe
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fe.cases.pictures import read
from fe.cli.main import main
from fe.experiments.meter import metered
from fe.solvers.euler import Euler
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

WORDS = {"source": "a red star", "target": "a blue heart"}
SHORT: dict[str, Any] = {**WORDS, "steps": 4, "seed": 3}


@pytest.fixture(params=["flux", "sd3", "instaflow"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    """A toy pipeline of each adapter, under the name of its kind."""
    builders = {"flux": "tiny_pipeline", "sd3": "tiny_sd3", "instaflow": "tiny_unet"}
    build = request.getfixturevalue(builders[request.param])
    return request.param, build(guided=True) if request.param == "flux" else build()


def command(*words: str | Path) -> str:
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_object_folder_and_command_line_give_identical_latents(pipeline: tuple[str, Any], photo: Path, tmp_path: Path) -> None:
    kind, built = pipeline
    folder = tmp_path / "saved"
    built.save_pretrained(folder)
    by_object = fe.edit(fe.load_model(built, kind=kind), photo, **SHORT)
    by_folder = fe.edit(fe.load_model(folder, kind=kind, device="cpu"), photo, **SHORT)
    words = ["--source", WORDS["source"], "--target", WORDS["target"], "--steps", "4", "--seed", "3", "--device", "cpu"]
    command("edit", photo, *words, "--model", f"{kind}:{folder}", "--save-latents", "--out", tmp_path / "out")
    by_command = load_file(tmp_path / "out" / "photo.flowedit-euler-4.seed3.safetensors")["latent"]
    assert torch.equal(by_object.latent, by_folder.latent)
    assert torch.equal(by_object.latent, by_command)
    written = read(tmp_path / "out" / "photo.flowedit-euler-4.seed3.png").pixels
    assert (written - by_object.pixels).abs().max() <= 0.51 / 255
    assert not torch.equal(fe.edit(fe.load_model(built, kind=kind), photo, **SHORT | {"seed": 4}).latent, by_object.latent)


def traces(pipeline: Any) -> dict[str, Any]:
    """All that a call could leave on a pipeline: hooks, attributes, modes, the scheduler's state."""
    seen: dict[str, Any] = {"": sorted(vars(pipeline)), "scheduler": sorted(vars(pipeline.scheduler).items(), key=str)}
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            for name, inner in module.named_modules():
                hooks = (len(inner._forward_hooks), len(inner._forward_pre_hooks), len(inner._backward_hooks))
                seen[f"{part}.{name}"] = (hooks, inner.training, sorted(vars(inner)), id(getattr(inner, "processor", None)))
            seen[f"{part}:"] = {name: weight.sum().item() for name, weight in module.state_dict().items()}
    return {name: repr(value) for name, value in seen.items()}


@dataclass(frozen=True)
class Failing(Euler):  # type: ignore[misc]
    """A solver that breaks after its first evaluation."""

    def step(self, slope: Any, t0: float, t1: float, x: Tensor, state: None) -> Any:
        slope(t0, x)
        raise ZeroDivisionError


@pytest.mark.parametrize("editor", ["flowedit", "injection", "inversion"])
def test_nothing_is_left_on_the_pipeline(pipeline: tuple[str, Any], photo: Path, editor: str) -> None:
    kind, built = pipeline
    fe.load_model(built, kind=kind).condition(["a star"], 1.0)  # transformers keeps hooks of its own from a first use
    before = traces(built)
    fe.edit(fe.load_model(built, kind=kind), photo, **SHORT, editor=editor)
    fe.generate(fe.load_model(built, kind=kind), "a star", steps=2, size=(32, 48))
    with pytest.raises(ZeroDivisionError):
        fe.edit(fe.load_model(built, kind=kind), photo, **SHORT, editor=editor, solver=Failing())
    assert traces(built) == before


def test_a_picture_may_come_in_any_form(tiny: Any, photo: Path) -> None:
    image = Image.open(photo)
    bytes_ = np.asarray(image)
    floats = bytes_.astype(np.float32) / np.float32(255)
    forms = [photo, str(photo), image, bytes_, floats, torch.from_numpy(floats).permute(2, 0, 1)]
    edits = [fe.edit(tiny, form, **SHORT) for form in forms]
    for edit in edits[1:]:
        assert torch.equal(edit.latent, edits[0].latent)
    assert edits[0].notes == ("the middle 48x32 of 48x35 is used",)
    layered = Image.new("RGBA", (48, 32), (255, 0, 0, 0))
    assert fe.edit(tiny, layered, **SHORT).notes == ("its transparency is laid on white",)
    assert fe.edit(tiny, Image.new("RGBA", (48, 32), "red"), **SHORT).notes == ()  # it has none
    grey = bytes_[..., 0]
    floats = (grey / 255).astype(">f4")
    forms = [Image.fromarray(grey), grey, grey[..., None], floats, torch.from_numpy(grey.copy())[None]]
    greys = [fe.edit(tiny, form, **SHORT).latent for form in forms]
    assert all(torch.allclose(one, greys[0], atol=1e-5) for one in greys)


def test_a_file_s_name_does_not_matter(tiny: Any, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    assert torch.equal(fe.edit(tiny, photo, **SHORT).latent, fe.edit(tiny, other, **SHORT).latent)


def test_an_edited_picture_shows_and_saves_itself(tiny: Any, photo: Path, tmp_path: Path) -> None:
    edited = fe.edit(tiny, photo, **SHORT, keep_path=True, options={"flowedit": {"n_max": 4}})
    assert repr(edited).startswith("Edited(flowedit-euler-4: 48x32, 4 calls, 8 rows, ")
    assert repr(edited).endswith("  the middle 48x32 of 48x35 is used")
    shown = Image.open(io.BytesIO(edited._repr_png_()))
    place = edited.save(tmp_path / "new" / "edited.png", latent=True)
    saved = read(place).pixels
    for picture in (shown, edited.picture):
        assert torch.equal(torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255, saved)
    assert (saved - edited.pixels).abs().max() <= 0.51 / 255
    assert torch.equal(load_file(place.with_suffix(".safetensors"))["latent"], edited.latent)
    assert list(edited.path) == [0, 1, 2, 3, 4]
    assert torch.equal(edited.path[4], edited.pixels)
    assert edited.strip().width > 5 * 128 - 1
    edited.pixels.requires_grad_()  # results are tensors like any other
    with pytest.raises(ValueError, match=r"end in \.png"):
        edited.save(tmp_path / "edited.jpg")
    with pytest.raises(ValueError, match="keep_path=True"):
        fe.edit(tiny, photo, **SHORT).strip()


def test_a_path_that_there_is_none_of_is_refused_before_the_work(tiny: Any, photo: Path) -> None:
    """RF-Inversion has one on the grid that it comes back by only."""
    given = {**SHORT, "editor": "rf-inversion"}
    with metered(tiny.network) as meter, pytest.raises(ValueError, match="RFInversion has no path from the source"):
        fe.edit(tiny, photo, **given, keep_path=True)
    assert meter.calls == 0
    assert fe.edit(tiny, photo, **given, keep_path=True, options={"rf-inversion.grid": "consistent"}).path


@dataclass(frozen=True)
class Yielding(Euler):  # type: ignore[misc]
    """Lets other threads run before every step."""

    def step(self, *args: Any) -> Any:
        time.sleep(0.002)
        return super().step(*args)


def test_threads_that_share_a_model_take_turns(tiny: Any, photo: Path) -> None:
    """Features that one records would be injected by the other, and each would be told the cost of both."""
    asked = [{**WORDS, "steps": 6, "editor": "injection", "solver": Yielding(), "seed": seed} for seed in range(2)]
    asked[1] |= {"source": WORDS["target"], "target": WORDS["source"]}
    one_by_one = [fe.edit(tiny, photo, **given) for given in asked]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda given: fe.edit(tiny, photo, **given), asked * 2))
    for found, expected in zip(together, one_by_one * 2, strict=True):
        assert torch.equal(found.latent, expected.latent)
        assert (found.cost.calls, found.cost.rows) == (expected.cost.calls, expected.cost.rows)


def test_editors_and_solvers_may_be_objects(tiny: Any, photo: Path) -> None:
    named = fe.edit(tiny, photo, **SHORT, editor="inversion", solver="heun", options={"inversion.target_guidance": 2})
    objects = fe.edit(tiny, photo, **SHORT, editor=fe.EDITORS["inversion"](target_guidance=2.0), solver=fe.SOLVERS["heun"]())
    assert torch.equal(named.latent, objects.latent)
    with pytest.raises(ValueError, match=r"inversion.carry belongs to nothing in this run"):
        fe.edit(tiny, photo, **SHORT, editor=fe.EDITORS["inversion"](), options={"inversion.carry": True})


def test_both_halves_of_an_inversion_are_a_reconstruction(tiny: Any, photo: Path) -> None:
    noise = fe.invert(tiny, photo, prompt="a red star", solver="fireflow", steps=5)
    again = fe.generate(tiny, "a red star", solver="fireflow", steps=5, guidance=1.0, noise=noise.latent)
    whole = fe.reconstruct(tiny, photo, prompt="a red star", solver="fireflow", steps=5)
    assert torch.equal(again.latent, whole.latent)
    assert noise.cost.calls + again.cost.calls == whole.cost.calls == 12
    source = fe.edit(tiny, photo, **SHORT, editor="no-edit")
    assert not torch.allclose(noise.latent, source.latent, atol=0.1)
    carried = fe.reconstruct(tiny, photo, solver="alf", steps=5, carry=True)
    assert (carried.latent - source.latent).abs().max() < 1e-4
    assert carried.rmse == pytest.approx(255 * (carried.pixels - shown(photo)).square().mean().sqrt().item(), rel=1e-4)
    assert "RMSE" in repr(carried)


def shown(photo: Path) -> Tensor:
    """The part of the photo that the toy model takes."""
    return read(photo).pixels[:, 1:33]


def test_generating_is_the_commands(tiny_scenes: str, tmp_path: Path) -> None:
    star = "a large red star at the left on a striped blue background"
    command("generate", "--prompt", star, "--steps", "2", "--seed", "5", "--model", tiny_scenes, "--out", tmp_path)
    drawn = fe.generate(fe.load_model(tiny_scenes), star, steps=2, seed=5)
    assert (read(next(tmp_path.glob("*.png"))).pixels - drawn.pixels).abs().max() <= 0.51 / 255
    with pytest.raises(ValueError, match="draws 64x64 only"):
        fe.generate(fe.load_model(tiny_scenes), star, size=(32, 32))
    with pytest.raises(ValueError, match="leave out size and seed"):
        fe.generate(fe.load_model(tiny_scenes), star, noise=drawn.latent, seed=1)


def test_a_picture_is_drawn_in_the_size_that_the_network_was_trained_on(
    tiny_sd3: Callable[[], Any], tiny_unet: Callable[[], Any]
) -> None:
    """As the pipelines themselves do: InstaFlow at 512, not at the 1024 of others."""
    models = [fe.load_model(tiny_sd3()), fe.load_model(tiny_unet(), kind="2rf")]
    for model, latents in zip(models, (16, 8), strict=True):
        assert fe.generate(model, "a star", steps=1).latent.shape[1:] == (latents, latents)


def test_a_mask_keeps_the_rest(tiny: Any, photo: Path, tmp_path: Path) -> None:
    mask = np.zeros((35, 48), np.uint8)
    mask[:, 24:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    plain, masked = (fe.edit(tiny, photo, **SHORT, mask=one) for one in (None, tmp_path / "mask.png"))
    source = fe.edit(tiny, photo, **SHORT, editor="no-edit")
    left = source.latent.shape[-1] // 2
    assert torch.equal(masked.latent[..., :left], source.latent[..., :left])
    assert (masked.latent[..., left:] - source.latent[..., left:]).abs().max() > 0.01
    assert (plain.latent[..., :left] - source.latent[..., :left]).abs().max() > 0.01
    small = Image.fromarray(mask).resize((96, 70))
    assert "the mask is resized from 96x70 to 48x35" in fe.edit(tiny, photo, **SHORT, mask=small).notes
    with pytest.raises(ValueError, match=r"takes no mask; .*flowedit"):
        fe.edit(tiny, photo, **SHORT, editor="no-edit", mask=tmp_path / "mask.png")
    forms = [mask, mask == 255, mask / 255, torch.from_numpy(mask)[None], torch.from_numpy(mask == 255)]
    for form in forms:
        assert torch.equal(fe.edit(tiny, photo, **SHORT, mask=form).latent, masked.latent)


def test_progress_counts_the_calls_that_are_foretold(tiny: Any, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("fe.reports.at_work.Console", lambda stderr: terminal)
    fe.edit(tiny, photo, **SHORT, progress=False)
    assert screen.getvalue() == ""
    calls = fe.edit(tiny, photo, **SHORT, editor="inversion", solver="midpoint").cost.calls
    assert "editing" in screen.getvalue()
    assert f"{calls}/{calls} calls" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    fe.edit(tiny, photo, **SHORT, editor="injection")
    assert re.search(r"editing keeps .* of features \(2 blocks, 1 step\)", screen.getvalue())


def test_it_is_quiet_elsewhere(tiny: Any, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fe.edit(tiny, photo, **SHORT)
    assert capsys.readouterr() == ("", "")


def test_what_will_be_kept_in_memory_is_said_also_where_no_progress_is_shown(
    tiny: Any, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fe.edit(tiny, photo, **SHORT, editor="injection")
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"editing keeps .* of features \(2 blocks, 1 step\) on the device\n", said.err)
    fe.edit(tiny, photo, **SHORT, editor="injection", progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["bfloat16", "bf16", torch.bfloat16])
def test_a_dtype_goes_by_its_names(tiny_folder: Path, dtype: Any) -> None:
    assert fe.load_model(tiny_folder, dtype=dtype).dtype == torch.bfloat16
