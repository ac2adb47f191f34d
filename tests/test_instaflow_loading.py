"""Loading UNets: by name, with whatever scheduler their folders carry, without what is not used; and from the command line."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from fe.cli.main import main
from fe.experiments.names import build_loader, load_model, pipeline_kind
from fe.models.base import Setup
from fe.models.instaflow import UNetModel
from fe.options import OptionError
from PIL import Image

SCHEDULERS = ["DDIM", "DPMSolverMultistep", "EulerDiscrete", "FlowMatchEulerDiscrete", "PNDM"]
FOREIGN = {"_class_name": "FluxPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
SOURCE, TARGET = "a large red star at the left", "a large blue heart at the left"


@pytest.fixture
def folder(tiny_unet_folder: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_unet_folder, copy)
    return copy


def change(folder: Path, name: str = "model_index.json", **entries: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize(("name", "predicts"), [("instaflow", "velocity"), ("2rf", "velocity"), ("sd15", "epsilon")])
def test_a_saved_pipeline_comes_back_the_same(
    name: str, predicts: str, tiny_unet_folder: Path, tiny_unet: Callable[..., Any]
) -> None:
    model, original = load_model(f"{name}:{tiny_unet_folder}", Setup()), UNetModel(tiny_unet(), predicts=predicts)
    x = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = original.velocity(0.7, x, original.condition([SOURCE], 2.5))
        assert torch.equal(model.velocity(0.7, x, model.condition([SOURCE], 2.5)), expected)
        assert torch.equal(model.decode(x), original.decode(x))
    assert model.grid(4, x.shape) == original.grid(4, x.shape)


def test_the_option_decides(tiny_unet_folder: Path) -> None:
    x = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    found = {}
    for predicts in ("velocity", "epsilon", "v-vp"):
        model = load_model(f"instaflow:{tiny_unet_folder}", Setup(), {"predicts": predicts})
        with torch.no_grad():
            found[predicts] = model.velocity(0.7, x, model.condition([SOURCE], 1.0))
    assert len({float(velocity.sum()) for velocity in found.values()}) == 3
    with pytest.raises(OptionError, match="predicts must be one of velocity, epsilon, v-vp, got 'noise'"):
        build_loader("sd15", {"predicts": "noise"})


def test_each_name_has_its_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    homes = {
        "2rf": "XCLiu/2_rectified_flow_from_sd_1_5",
        "instaflow": "XCLiu/instaflow_0_9B_from_sd_1_5",
        "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    }
    for name, home in homes.items():
        with pytest.raises(ValueError, match=f"the model '{home}' is not on this machine; `hf download {home}` fetches it"):
            load_model(name, Setup())


def test_a_folder_alone_does_not_say_what_its_network_predicts(tiny_unet_folder: Path) -> None:
    with pytest.raises(ValueError, match="its files do not say which; write instaflow:MODEL or sd15:MODEL"):
        load_model(str(tiny_unet_folder), Setup())


def test_a_folder_of_instaflows_own_class_does(folder: Path) -> None:
    change(folder, _class_name="RectifiedFlowPipeline")
    model = load_model(str(folder), Setup())
    assert isinstance(model, UNetModel)
    assert model.grid(1, (1, 4, 8, 8)).times == (1.0, 0.0)
    assert pipeline_kind("RectifiedFlowPipeline") == "instaflow"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_any_scheduler_serves_a_flow(scheduler: str, folder: Path) -> None:
    name = f"{scheduler}Scheduler"
    shutil.rmtree(folder / "scheduler")
    getattr(diffusers, name)().save_pretrained(folder / "scheduler")
    change(folder, scheduler=["diffusers", name])
    assert load_model(f"2rf:{folder}", Setup()).grid(4, (1, 4, 8, 8)).times == (1.0, 0.75, 0.5, 0.25, 0.0)


def test_a_network_of_another_prediction_is_refused_with_the_option_that_takes_it(folder: Path) -> None:
    change(folder, "scheduler/scheduler_config.json", prediction_type="v_prediction")
    with pytest.raises(ValueError, match=r"predicts 'v_prediction', not noise \(epsilon\); use predicts=v-vp"):
        load_model(f"sd15:{folder}", Setup())
    load_model(f"sd15:{folder}", Setup(), {"predicts": "v-vp"})


def test_the_safety_checker_is_not_loaded_and_old_files_load_in_silence(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As Stable Diffusion's oldest folders are: diffusers corrects their settings with a page of warnings each."""
    change(
        folder,
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPFeatureExtractor"],
        requires_safety_checker=True,
    )
    change(folder, "scheduler/scheduler_config.json", steps_offset=0, clip_sample=True)
    change(folder, "unet/config.json", _diffusers_version="0.6.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model(f"sd15:{folder}", Setup())
    assert isinstance(model, UNetModel)
    assert model.pipeline.safety_checker is None
    assert capfd.readouterr() == ("", "")
    corrected = load_model(f"sd15:{folder}", Setup()).grid(10, (1, 4, 8, 8)).times
    change(folder, "scheduler/scheduler_config.json", steps_offset=1)
    assert corrected == load_model(f"sd15:{folder}", Setup()).grid(10, (1, 4, 8, 8)).times


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (FOREIGN, "of class 'FluxPipeline', which this adapter cannot drive"),
        ({"unet": ["evil", "UNet2DConditionModel"]}, "is 'evil:UNet2DConditionModel'; it must be"),
        ({"scheduler": ["diffusers", "EvilScheduler"]}, "is 'diffusers:EvilScheduler'; it must be"),
        ({"text_encoder": [None, None]}, "it must be transformers:CLIPTextModel"),
    ],
)
def test_a_foreign_folder_is_refused(entries: dict[str, Any], message: str, folder: Path) -> None:
    change(folder, **entries)
    with pytest.raises(ValueError, match=message):
        load_model(f"instaflow:{folder}", Setup())


Fe = Callable[..., Result]


@pytest.fixture
def fe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fe:
    """Edit a picture of 40 x 24 pixels."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)).save("photo.png")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(
            main, ["edit", "photo.png", "--source", SOURCE, "--target", TARGET, "--steps", "5", *arguments]
        )

    return run


@pytest.mark.parametrize("name", ["instaflow", "sd15"])
@pytest.mark.parametrize(
    ("editor", "cost"),
    [
        (["--editor", "flowedit"], "4 calls, 16 rows"),  # both prompts guided
        (["--editor", "inversion"], "10 calls, 15 rows"),
        (["--editor", "injection", "--solver", "midpoint"], "20 calls, 30 rows"),
    ],
)
def test_editors_run_on_the_command_line(name: str, editor: list[str], cost: str, fe: Fe, tiny_unet_folder: Path) -> None:
    done = fe("--model", f"{name}:{tiny_unet_folder}", *editor)
    assert done.exit_code == 0, done.stderr
    assert cost in done.stdout
    (result,) = Path("results/edit").glob("*.png")
    with Image.open(result) as picture:
        assert picture.size == (40, 24)


def test_a_folder_alone_is_refused_on_the_command_line(fe: Fe, tiny_unet_folder: Path) -> None:
    done = fe("--model", str(tiny_unet_folder))
    assert done.exit_code == 2
    assert "write instaflow:MODEL or sd15:MODEL" in done.stderr
    assert done.stderr.count("\n") == 1
