"""What injected features take, where they are kept, and what is said when memory does not suffice."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from fe.cases.base import Case
from fe.cli.main import main
from fe.editors.base import Editor
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.editors.kept import Kept
from fe.experiments.compare import carry_out, open_folder, prepare
from fe.experiments.execute import Outcome, encode, execute
from fe.experiments.names import build_solver, load_model
from fe.experiments.plan import Comparison
from fe.experiments.run import Effort
from fe.experiments.words import Method
from fe.models.architectures import ARCHITECTURES
from fe.models.base import Model, Setup
from fe.models.fitting import fitting
from fe.models.flux import FluxModel
from fe.models.instaflow import UNetModel
from fe.models.scenes import ScenesLoader
from fe.models.sd3 import SD3Model
from torch import Tensor

SOURCE, TARGET = "a large red star at the left", "a small blue ring at the right"
CUDA = torch.device("cuda", 0)
Pipelines = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=["flux", "sd3", "unet"])
def model(request: pytest.FixtureRequest, tiny_pipeline: Pipelines, tiny_sd3: Pipelines, tiny_unet: Pipelines) -> Model[Any]:
    if request.param == "flux":
        return FluxModel(tiny_pipeline(guided=True, dtype=torch.bfloat16))
    return SD3Model(tiny_sd3(dual=True)) if request.param == "sd3" else UNetModel(tiny_unet())


@pytest.fixture(scope="module")
def flux_dev() -> Model[Any]:
    """The whole of FLUX.1-dev's transformer in bfloat16, without its numbers."""
    part = ARCHITECTURES["black-forest-labs/FLUX.1-dev"].networks["transformer"]
    with torch.device("meta"):
        transformer = part.build().to(torch.bfloat16)
    parts = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return FluxModel(FluxPipeline(transformer=transformer, scheduler=scheduler, **parts))


def run(model: Model[Any], editor: Editor, solver: str = "euler", steps: int = 3) -> Outcome:
    pictures = torch.rand(2, 3, 20, 12, generator=torch.Generator().manual_seed(2))
    return execute(model, editor, build_solver(solver), steps, [Case(str(i), pictures[i], SOURCE, TARGET) for i in range(2)], 0)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rf-solver", "fireflow", "rk4", "ab2", "reversible-heun", "uni-inv"])
@pytest.mark.parametrize("inject", [1, 2, 9])
def test_the_estimate_is_what_is_stored(model: Model[Any], solver: str, inject: int) -> None:
    editor = Injection(inject=inject, strategy="replace_v+add_v+add_k", target_guidance=3.0)
    outcome = run(model, editor, solver)
    grid = model.grid(3, outcome.source_latents.shape)
    kept = editor.kept(model, build_solver(solver), grid, outcome.source_latents)
    assert kept.bytes == outcome.edit.counts["stored_bytes"] > 0
    assert kept.steps == min(inject, 3)


@pytest.mark.parametrize(
    ("editor", "solver", "steps", "size", "said"),
    [
        (Injection(inject=1, first_block=0, last_block=0), "fireflow", 8, 28.3e6, "28.3 MB of features (1 block, 1 step)"),
        (Injection(inject=1), "fireflow", 8, 1.08e9, "1.08 GB of features (38 blocks, 1 step)"),
        (Injection(inject=20, first_block=20), "rf-solver", 25, 20.4e9, "20.4 GB of features (18 blocks, 20 steps)"),
    ],
)
def test_the_published_methods_on_the_real_size(
    flux_dev: Model[Any], editor: Injection, solver: str, steps: int, size: float, said: str
) -> None:
    """METHODS at 1024x1024 in bfloat16: 28.3 MB a block, 1.08 GB for FireFlow's preset, 20.4 GB for 20 injected steps."""
    latent = torch.zeros(1, 16, 128, 128, device="meta")
    kept = editor.kept(flux_dev, build_solver(solver), flux_dev.grid(steps, latent.shape), latent)
    assert kept.bytes == pytest.approx(size, rel=5e-3)
    phrase = editor.budget(flux_dev, build_solver(solver), flux_dev.grid(steps, latent.shape), latent)
    assert phrase == f"keeps {said} on the device"


def test_states_and_no_steps_are_nothing_worth_saying(model: Model[Any]) -> None:
    latent = torch.zeros(1, 4, 8, 8)
    for editor in (FlowEdit(), Injection(inject=0), Injection(memory="in-batch")):
        assert editor.budget(model, build_solver("euler"), model.grid(3, latent.shape), latent) == ""


def test_where_features_are_kept_changes_nothing(model: Model[Any]) -> None:
    outcomes = []
    for features in ("auto", "device", "host"):
        model.setup = Setup(features=features)
        outcomes.append(run(model, Injection(inject=2), "fireflow"))
    for outcome in outcomes[1:]:
        assert torch.equal(outcome.latents, outcomes[0].latents)
        assert outcome.edit.counts == outcomes[0].edit.counts


@pytest.mark.parametrize(
    ("features", "size", "on_host"),
    [
        ("auto", 13_000_000_000, False),
        ("auto", 14_000_000_000, True),
        ("device", 10**12, False),
        ("host", 1, True),
    ],
)
def test_auto_takes_the_host_where_the_device_has_no_room(
    features: str, size: int, on_host: bool, tiny_pipeline: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 GB, of which 12 are free and 4 more are only cached; 2.4 stay spare: 13.6 GB are left."""
    model = FluxModel(tiny_pipeline(guided=True))
    model.setup = Setup(features=features)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (12 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 11 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7 * 10**9)
    kept = Kept(size, 38, 1)
    assert kept.on_host(model, CUDA) == on_host
    assert kept.said(model, CUDA).endswith("in the host's memory" if on_host else "on the device")
    assert not (features == "auto" and kept.on_host(model, torch.device("cpu")))


def test_auto_leaves_room_for_weights_that_are_still_to_come(tiny_pipeline: Pipelines, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FluxModel(tiny_pipeline(guided=True))
    weights = sum(weight.nbytes for weight in model.network.parameters())  # on the CPU, as when they are offloaded
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (weights + 1000, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    assert [Kept(size, 1, 1).on_host(model, CUDA) for size in (1000, 1001)] == [False, True]


# out of memory


def full(*args: object, **given: object) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@pytest.mark.parametrize(
    ("setup", "editor", "rows", "said"),
    [
        (
            Setup(),
            FlowEdit(),
            1,
            "try --dtype bfloat16 or --low-memory or --quantise nf4 or a smaller --side",
        ),
        (
            Setup(dtype="bfloat16", quantise="int8"),
            Injection(),
            2,
            "try --low-memory or --quantise nf4 or a smaller --batch or a smaller --side or --features host",
        ),
        (Setup(dtype="bfloat16", low_memory=True, quantise="nf4", features="host"), Injection(), 1, "try a smaller --side"),
        (None, FlowEdit(), 1, "enable_model_cpu_offload"),
    ],
)
@pytest.mark.parametrize("where", ["network", "codec"])
def test_out_of_memory_says_what_may_fit(
    where: str,
    setup: Setup | None,
    editor: Editor,
    rows: int,
    said: str,
    tiny_pipeline: Pipelines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = FluxModel(tiny_pipeline(guided=True))
    model.setup = setup
    cases = [Case(str(i), torch.rand(3, 16, 16), SOURCE, TARGET) for i in range(rows)]
    if where == "network":
        monkeypatch.setattr(model.network, "forward", full)
    else:
        monkeypatch.setattr(model.pipeline.vae, "decode", full)
    with pytest.raises(ValueError, match=r"^out of GPU memory; try ") as caught:
        execute(model, editor, build_solver("euler"), 2, cases, 0)
    assert said in str(caught.value)
    assert caught.value.__context__ is None


def test_what_is_in_use_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (6 * 10**8, 24 * 10**9))
    with pytest.raises(ValueError, match=r"^out of GPU memory: 23\.4 of 24\.0 GB were in use; try --low-memory"):
        fitting(full, Setup(dtype="bfloat16"))


def test_the_memory_of_a_failed_attempt_is_given_back_at_once() -> None:
    """Whoever tries again with less must not find the memory taken by what failed."""
    held: list[weakref.ref[Tensor]] = []

    def work() -> Tensor:
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        return full(large)

    gc.disable()
    try:
        fitting(work, None)
    except ValueError:
        assert held[0]() is None
    finally:
        gc.enable()
    assert len(held) == 1


@pytest.fixture
def full_scenes(tiny_scenes: str, monkeypatch: pytest.MonkeyPatch) -> str:
    loaded = ScenesLoader.load

    def load(self: ScenesLoader, source: str | None, setup: Setup) -> Any:
        model = loaded(self, source, setup)
        model.network.forward = full
        return model

    monkeypatch.setattr(ScenesLoader, "load", load)
    return tiny_scenes


def test_the_command_ends_with_one_sentence(full_scenes: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["edit", "scenes:0", "--model", full_scenes, "--device", "cpu", "--steps", "2", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("fe: out of GPU memory; try --dtype bfloat16")
    assert "Traceback" not in result.output


def test_encoding_and_loading_say_it_too(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = load_model(f"flux:{tiny_folder}", Setup())
    monkeypatch.setattr(model.pipeline.vae, "encode", full)
    with pytest.raises(ValueError, match=r"^out of GPU memory; try --dtype bfloat16 .* or a smaller --side$"):
        encode(model, [Case("a", torch.rand(3, 16, 16), SOURCE, TARGET)])
    monkeypatch.setattr(FluxPipeline, "to", full)
    with pytest.raises(ValueError, match=r"^out of GPU memory; try --low-memory or --quantise nf4$"):
        load_model(f"flux:{tiny_folder}", Setup(dtype="bfloat16"))


@pytest.mark.parametrize(("room", "failing"), [(2, 0), (1, 2)])
def test_a_comparison_tries_each_case_alone_and_records_what_does_not_fit(
    room: int, failing: int, tiny_scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FlowEdit evaluates two rows a case: on a GPU with room for two rows it does one case at a time, and with room for one
    none, while reconstruction still fits."""
    plan = Comparison((Method("flowedit", "euler"),), tiny_scenes, "scenes", 2, (2,))
    prepared = prepare(plan)
    network, plain = prepared.model.network, prepared.model.network.forward

    def forward(**given: Any) -> Any:
        return plain(**given) if len(given["hidden_states"]) <= room else full()

    monkeypatch.setattr(network, "forward", forward)
    with open_folder(prepared, tmp_path / "run", overwrite=False) as folder:
        carry_out(prepared, folder, lambda done, total, failed: None, Effort(batch=2, pictures=False))
    lines = [json.loads(line) for line in (folder.path / "records.jsonl").read_text().splitlines()]
    faults = [line["error"] for line in lines if line["error"] is not None]
    assert len(faults) == failing
    assert all(fault.startswith("OutOfMemoryError: out of GPU memory; try --dtype bfloat16") for fault in faults)
    assert sum(record.error is None for record in folder.records()) == len(prepared.cells) - failing
