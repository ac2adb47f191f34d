"""fe edit, fe generate and fe reconstruct on a toy model: what they write, what they say, what they refuse."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from fe.cases.pictures import read
from fe.cases.scenes import ScenesCases
from fe.cli.main import main
from PIL import Image
from safetensors.torch import load_file

STAR = "a large red star at the left on a striped blue background"
HEART = "a large red heart at the left on a striped blue background"
Fe = Callable[..., Result]


@pytest.fixture
def fe(tiny_scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fe:
    """Run a command with the toy model in an empty working folder."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--model", tiny_scenes])

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(values).save(path)
    return path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_refused(done: Result, message: str) -> None:
    assert message in done.stderr
    assert done.stderr.startswith("fe: ")
    assert done.stderr.count("\n") == 1
    assert done.exit_code == 2
    assert files(Path.cwd()) == []


def test_a_case_of_scenes_brings_its_prompts(fe: Fe) -> None:
    done = fe("edit", "scenes:7", "--steps", "7")
    assert done.exit_code == 0, done.stderr
    assert "6 calls, 12 rows" in done.stdout  # 24 of 28 steps; source and target are rows of one call
    assert files(Path.cwd()) == ["results/edit/scenes-7.flowedit-euler-7.png"]
    assert read(Path("results/edit/scenes-7.flowedit-euler-7.png")).pixels.shape == (3, 64, 64)


def test_equal_prompts_give_back_the_case(fe: Fe) -> None:
    guidance = ["--set", "flowedit.source_guidance=2", "--set", "flowedit.target_guidance=2"]
    assert fe("edit", "scenes:3", "--steps", "4", "--source", STAR, "--target", STAR, *guidance).exit_code == 0
    edited = read(Path("results/edit/scenes-3.flowedit-euler-4.source_guidance=2.target_guidance=2.png")).pixels
    assert fe("edit", "scenes:3", "--editor", "no-edit", "--steps", "4").exit_code == 0
    codec = read(Path("results/edit/scenes-3.no-edit-euler-4.png")).pixels
    source = ScenesCases().take(4)[3].picture
    assert (edited - codec).abs().max() < 1.5 / 255
    assert (codec - source).square().mean().sqrt() < 0.05  # the right case, and not another


def test_a_photo_is_fitted_and_told_and_left_as_it_was(fe: Fe, photo: Path) -> None:
    before = photo.read_bytes()
    done = fe("edit", str(photo), "--source", STAR, "--target", HEART, "--steps", "2", "--path")
    assert done.exit_code == 0, done.stderr
    assert "photo: resized from 120x80 to 96x64" in done.stdout
    assert "photo: the middle 64x64 of 96x64 is used" in done.stdout
    assert photo.read_bytes() == before
    assert files(Path.cwd()) == [
        "results/edit/photo.flowedit-euler-2.path.png",
        "results/edit/photo.flowedit-euler-2.png",
    ]
    with Image.open("results/edit/photo.flowedit-euler-2.path.png") as strip:
        assert strip.width > 3 * 128 - 1  # the source, a step, the result


def test_the_strip_begins_with_the_source_and_ends_with_the_result(fe: Fe) -> None:
    assert fe("edit", "scenes:0", "--steps", "3", "--set", "flowedit.n_max=3", "--path").exit_code == 0
    with Image.open("results/edit/scenes-0.flowedit-euler-3.n_max=3.path.png") as image:
        strip = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
    small = strip[:, :128:2, ::2]  # 64-pixel pictures are shown twice as large
    source = ScenesCases().take(1)[0].picture
    result = read(Path("results/edit/scenes-0.flowedit-euler-3.n_max=3.png")).pixels
    assert (small[:, :, :64] - source).square().mean().sqrt() < 0.05
    assert torch.equal(small[:, :, -64:], result)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(fe: Fe) -> None:
    seen = []
    for seed in ("5", "5", "6"):
        assert fe("edit", "scenes:1", "--steps", "3", "--seed", seed).exit_code == 0
        seen.append(Path(f"results/edit/scenes-1.flowedit-euler-3.seed{seed}.png").read_bytes())
    assert seen[0] == seen[1] != seen[2]


def test_a_folder_is_edited_and_a_bad_picture_is_named_and_left_out(fe: Fe, photo: Path) -> None:
    place = photo.parent / "album"
    place.mkdir()
    for name in ("a.png", "a.jpg", "b.PNG"):
        Image.open(photo).save(place / name)
    (place / "c.png").write_text("no picture")
    (place / "notes.txt").write_text("not looked at")
    done = fe("edit", str(place), "--source", STAR, "--target", HEART, "--steps", "2")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0].startswith("fe: c is left out: ")
    assert done.stderr.splitlines()[-1] == "fe: 1 of 4 pictures could not be edited"
    assert files(Path("results/edit")) == [f"{name}.flowedit-euler-2.png" for name in ("a-jpg", "a-png", "b")]


def test_an_edit_that_comes_to_nothing_does_not_hold_up_a_folder(fe: Fe, photo: Path) -> None:
    place = photo.parent / "album"
    place.mkdir()
    for name in ("a.png", "b.png"):
        Image.open(photo).save(place / name)
    much = ["--set", "flowedit.target_guidance=1e38"]
    done = fe("edit", str(place), "--source", STAR, "--target", HEART, "--steps", "2", *much)
    assert done.exit_code == 2
    left_out = [
        f"fe: {name} is left out: the state is not finite from step 1 of 2 on; use more steps or a lower guidance scale"
        for name in "ab"
    ]
    assert done.stderr.splitlines() == [*left_out, "fe: 2 of 2 pictures could not be edited"]


def test_a_folder_with_prompts_uses_them(fe: Fe, photo: Path) -> None:
    place = photo.parent / "album"
    place.mkdir()
    Image.open(photo).save(place / "a.png")
    Image.open(photo).save(place / "b.png")
    (place / "prompts.csv").write_text(f"picture,source,target\nb.png,{STAR},{HEART}\n")
    done = fe("edit", str(place), "--steps", "2")
    assert done.exit_code == 0, done.stderr
    assert files(Path("results/edit")) == ["b.flowedit-euler-2.png"]


def test_a_preset_sets_editor_solver_and_steps(fe: Fe) -> None:
    done = fe("edit", "scenes:2", "--preset", "flowedit@flux")
    assert done.exit_code == 0, done.stderr
    assert "results/edit/scenes-2.flowedit@flux.png: 24 calls, 48 rows" in done.stdout


def test_options_go_before_the_preset(fe: Fe) -> None:
    done = fe(
        "edit", "scenes:2", "--preset", "flowedit@flux", "--steps", "14", "--solver", "midpoint", "--set", "flowedit.n_avg=2"
    )
    assert done.exit_code == 0, done.stderr
    assert (
        "scenes-2.flowedit@flux-midpoint-14.n_avg=2.png: 48 calls, 96 rows" in done.stdout
    )  # 12 of 14 steps, two draws, two stages
    altered = fe("edit", "scenes:2", "--preset", "fireflow@paper-8", "--set", "injection.inject=2")
    assert "scenes-2.fireflow@paper-8-fireflow-8.inject=2.png: 18 calls" in altered.stdout  # no longer what was published


def test_a_mask_keeps_the_rest_of_the_picture(fe: Fe, photo: Path) -> None:
    mask = np.zeros((80, 120), np.uint8)
    mask[:, 60:] = 255
    Image.fromarray(mask).save(photo.parent / "mask.png")
    words = ["edit", str(photo), "--source", STAR, "--target", HEART, "--steps", "3", "--mask", str(photo.parent / "mask.png")]
    assert_refused(fe(*words, "--editor", "from-noise"), "FromNoise takes no mask; ")
    assert_refused(fe(*words[:-1], "mask.png"), "there is no file 'mask.png'")
    assert fe(*words, "--save-latents").exit_code == 0
    assert fe("edit", str(photo), "--editor", "no-edit", "--steps", "3", *words[2:6], "--save-latents").exit_code == 0
    edited, source = (load_file(f"results/edit/photo.{name}-euler-3.safetensors")["latent"] for name in ("flowedit", "no-edit"))
    half = source.shape[-1] // 2
    assert torch.equal(edited[..., : half - 1], source[..., : half - 1])  # the mask's edge, resized, lies between
    assert not torch.equal(edited[..., half:], source[..., half:])


def test_options_of_the_model_are_set_as_the_models(tiny_folder: Path, photo: Path, tmp_path: Path) -> None:
    words = ["edit", str(photo), "--source", "a star", "--target", "a heart", "--steps", "2", "--model", f"flux:{tiny_folder}"]
    words += ["--dtype", "bf16", "--save-latents", "--out", str(tmp_path / "out")]
    found = []
    for exact in ("true", "false"):
        assert CliRunner().invoke(main, [*words, "--set", f"model.exact_time={exact}"]).exit_code == 0
        found.append(load_file(tmp_path / "out" / f"photo.flowedit-euler-2.exact_time={exact}.safetensors")["latent"])
    assert not torch.equal(*found)
    assert "did you mean exact_time" in CliRunner().invoke(main, [*words, "--set", "model.exact_tme=true"]).stderr


def test_bad_pictures_are_refused(fe: Fe, photo: Path) -> None:
    place = photo.parent
    (place / "empty.png").touch()
    (place / "text.png").write_text("hello")
    (place / "half.png").write_bytes(photo.read_bytes()[:4000])
    Image.new("RGB", (1, 1)).save(place / "dot.png")
    Image.new("RGB", (20000, 10)).save(place / "line.png")
    (place / "nothing").mkdir()
    cases = {
        "missing.png": "there is no file",
        "empty.png": "is empty",
        "text.png": "is no picture",
        "half.png": "is cut short",
        "dot.png": "1x1; this model needs at least 8 pixels",
        "line.png": "20000x10",
        "nothing": "has no pictures",
    }
    for name, message in cases.items():
        assert_refused(fe("edit", str(place / name), "--source", STAR, "--target", HEART), message)
    assert_refused(fe("edit", "scenes:9999999", "--source", STAR, "--target", HEART), "case 9999999 is out of range")
    assert_refused(fe("edit", "scens:3"), "there is no file 'scens:3'")  # rather than that its prompts are missing
    assert_refused(fe("edit", ""), "the picture's name is empty")  # not the pictures of this folder
    assert_refused(fe("edit", str(photo), "--source", STAR, "--target", HEART, "--side", "128"), "takes pictures of 64x64 only")
    assert_refused(fe("edit", "mixture:0"), "is no picture")


def test_words_that_the_model_does_not_know_are_named_with_near_ones(fe: Fe) -> None:
    assert_refused(fe("edit", "scenes:0", "--target", "a lrge red stra at the left"), "'lrge' (did you mean large")
    assert_refused(fe("generate", "--prompt", "a red hart"), "'hart' (did you mean heart")


def test_a_place_that_cannot_be_written_is_refused_before_any_work(fe: Fe, photo: Path) -> None:
    for command in (["edit", "scenes:0"], ["generate", "--prompt", STAR], ["reconstruct", "scenes:0"]):
        done = fe(*command, "--out", str(photo / "below"))
        assert_refused(done, "cannot be written")
        assert done.stdout == ""


def test_a_picture_is_never_replaced_by_its_result(fe: Fe, photo: Path) -> None:
    name = "photo.flowedit-euler-2.png"
    arguments = ["--source", STAR, "--target", HEART, "--steps", "2", "--out", str(photo.parent)]
    (photo.parent / name).symlink_to(photo)
    before = photo.read_bytes()
    done = fe("edit", str(photo), *arguments)
    assert "would replace the picture" in done.stderr
    assert done.exit_code == 2
    assert photo.read_bytes() == before


def test_an_editor_without_a_path_says_so_and_writes_nothing(fe: Fe) -> None:
    assert_refused(fe("edit", "scenes:0", "--editor", "from-noise", "--steps", "2", "--path"), "has no path")


def test_models_without_pictures_and_absent_models_are_refused(fe: Fe, tmp_path: Path) -> None:
    run = CliRunner()
    for command in (["edit", "scenes:0"], ["generate", "--prompt", "x"], ["reconstruct", "scenes:0"]):
        assert_refused(run.invoke(main, [*command, "--model", "mixture"]), "pictures")
        assert_refused(run.invoke(main, [*command, "--model", f"scenes:{tmp_path}"]), "holds no model_index.json")
        assert_refused(run.invoke(main, [*command, "--model", "flux"]), "write flux:FOLDER or flux:OWNER")


def test_generate_writes_one_picture_a_seed_whatever_the_count(fe: Fe) -> None:
    assert fe("generate", "--prompt", STAR, "--steps", "3", "--seed", "4", "--count", "2").exit_code == 0
    slug = STAR.replace(" ", "-")
    names = [f"{slug}.euler-3.seed{seed}.png" for seed in (4, 5)]
    assert files(Path("results/generate")) == names
    together = Path("results/generate", names[1]).read_bytes()
    done = fe("generate", "--prompt", STAR, "--steps", "3", "--seed", "5", "--out", "alone")
    assert "3 calls, 3 rows" in done.stdout
    assert Path("alone", names[1]).read_bytes() == together
    assert Path("results/generate", names[0]).read_bytes() != together


def test_generate_refuses_sizes_that_the_model_does_not_draw(fe: Fe) -> None:
    assert_refused(fe("generate", "--prompt", STAR, "--size", "64x128"), "draws 64x64 only")


def test_generate_takes_any_size_of_a_model_that_has_none_of_its_own(tiny_folder: Path, tmp_path: Path) -> None:
    run = CliRunner()
    base = ["generate", "--prompt", "a star", "--model", f"flux:{tiny_folder}", "--steps", "1", "--out", str(tmp_path / "out")]
    assert "must be multiples of 4" in run.invoke(main, [*base, "--size", "30x48"]).stderr
    done = run.invoke(main, [*base, "--size", "32x48"])
    assert done.exit_code == 0, done.stderr
    assert read(next((tmp_path / "out").iterdir())).pixels.shape == (3, 32, 48)


def test_a_free_model_edits_the_size_it_is_given_or_side(tiny_folder: Path, photo: Path, tmp_path: Path) -> None:
    base = ["edit", str(photo), "--source", "a star", "--target", "a heart", "--steps", "2", "--model", f"flux:{tiny_folder}"]
    result = tmp_path / "out" / "photo.flowedit-euler-2.png"
    assert CliRunner().invoke(main, [*base, "--out", str(tmp_path / "out")]).exit_code == 0
    assert read(result).pixels.shape == (3, 80, 120)
    assert CliRunner().invoke(main, [*base, "--out", str(tmp_path / "out"), "--side", "40"]).exit_code == 0
    assert read(result).pixels.shape == (3, 40, 60)


def test_reconstruct_counts_and_bounds(fe: Fe) -> None:
    done = fe("reconstruct", "scenes:2", "--solvers", "euler,alf", "--steps", "2,4")
    assert done.exit_code == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    euler = [row for row in rows if row[:1] == ["euler"]]
    alf = [row for row in rows if row[:1] == ["alf"]]
    codec = next(row for row in rows if row[:2] == ["codec", "alone"])
    assert [row[1:3] for row in euler] == [["2", "4"], ["4", "8"]]  # steps, and evaluations there and back
    assert [row[1:3] for row in alf] == [["2", "6"], ["4", "10"]]
    assert [row[5] for row in alf] == ["5", "9"]  # with its state carried it starts only once
    assert all(abs(float(row[6]) - float(codec[3])) < 0.05 for row in alf)  # exact but for the codec
    assert files(Path.cwd()) == ["results/reconstruct/scenes-2.reconstruct.png"]
    assert "|v_mid - v_prev|" in done.stdout


def test_reconstruct_takes_one_picture(fe: Fe, photo: Path) -> None:
    Image.open(photo).save(photo.parent / "second.png")
    assert_refused(fe("reconstruct", str(photo.parent)), "one picture is reconstructed at a time, got 2")


def test_results_of_other_settings_and_seeds_stand_beside_each_other(fe: Fe) -> None:
    base = ["edit", "scenes:1", "--steps", "3"]
    for more in ([], ["--set", "flowedit.n-max=2"], ["--set", "flowedit.n_max=2", "--seed", "4"], ["--seed", "4"]):
        assert fe(*base, *more).exit_code == 0
    names = [f"scenes-1.flowedit-euler-3{end}.png" for end in (".n_max=2", ".n_max=2.seed4", ".seed4", "")]
    assert sorted(files(Path("results/edit"))) == sorted(names)
    assert len({Path("results/edit", name).read_bytes() for name in names}) == 4
    long = [f"--set=flowedit.{name}=1.{'0' * 60}" for name in ("source_guidance", "target_guidance")]
    assert fe(*base, *long).exit_code == 0
    (hashed,) = set(files(Path("results/edit"))) - set(names)
    assert re.fullmatch(r"scenes-1\.flowedit-euler-3\.[0-9a-f]{8}\.png", hashed)


@pytest.fixture
def stars(tmp_path: Path) -> Path:
    """A list of prompts."""
    path = tmp_path / "stars.csv"
    rows = "".join(f"{STAR},{HEART},shape {number}\n" for number in range(3000))
    path.write_text(f"source,target,kind\n{rows}")
    return path


def test_generate_draws_a_list_and_compare_reads_it(fe: Fe, stars: Path) -> None:
    words = ["--solver", "midpoint", "--steps", "2", "--seed", "7", "--guidance", "2", "--count", "3"]
    done = fe("generate", "--prompts", str(stars), "--out", "drawn", *words)
    assert done.exit_code == 0, done.stderr
    assert files(Path("drawn")) == [".lock", *(f"0000{number}.png" for number in range(3)), "drawn.json", "prompts.csv"]
    assert Path("drawn/prompts.csv").read_text().splitlines()[3] == f"0002,00002.png,{STAR},{HEART},shape 2"
    found = re.fullmatch(r"drawn: 3 pictures with their prompts, and the noise known for: fe (.*)\n", done.stdout)
    assert found is not None
    told = found[1].split()
    told = told[: (at := told.index("--model"))] + told[at + 2 :]  # the fixture says it
    assert fe(*told, "--metrics", "source-psnr", "--editor", "no-edit", "--out", "run").exit_code == 0
    (Path("drawn") / "prompts.csv").write_text(Path("drawn/prompts.csv").read_text().replace("heart", "star"))
    assert fe(*told, "--metrics", "source-psnr", "--editor", "no-edit", "--out", "same").exit_code == 0
    for run, equal in (("run", False), ("same", True)):
        again = [read(path).pixels for path in sorted(Path(run, "pictures", "from-noise").glob("*.png"))]
        drawn = [read(path).pixels for path in sorted(Path("drawn").glob("*.png"))]
        assert ((torch.stack(again) - torch.stack(drawn)).abs().max() <= 1.01 / 255) == equal


def test_generate_is_told_one_thing_to_draw_and_where(fe: Fe, stars: Path) -> None:
    assert_refused(fe("generate"), "either by --prompt or by --prompts")
    assert_refused(fe("generate", "--prompt", STAR, "--prompts", str(stars)), "either by --prompt or by --prompts")
    assert_refused(fe("generate", "--prompts", str(stars)), "say where with --out FOLDER")
    assert_refused(fe("generate", "--prompts", "starz.csv", "--out", "drawn"), "there is no file 'starz.csv'")
    assert_refused(
        fe("generate", "--prompts", "scenes:2", "--out", "drawn", "--set", "mixture.points=3"), "which uses euler, scenes"
    )
    assert_refused(fe("generate", "--prompts", str(stars), "--out", "drawn", "--size", "64x128"), "draws 64x64 only")


def test_a_list_that_is_interrupted_says_what_is_kept(tiny_scenes: str, stars: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    command = ["generate", "--prompts", str(stars), "--model", tiny_scenes, "--steps", "1", "--batch", "2", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "fe.cli.main", *command],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell in the background leaves ignored
    )
    until = time.monotonic() + 100
    while not (out / "00003.png").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    kept = len(list(out.glob("*.png")))
    assert said == f"fe: interrupted: {kept} of 3000 pictures are kept in {out}; the same command goes on from there\n"
    assert process.returncode == 130
    assert 4 <= kept < 3000
    assert not (out / "prompts.csv").exists()
    assert not list(out.glob(".fe-*"))
