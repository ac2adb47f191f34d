"""A model that is larger than the machine's memory is refused before it is read; one that fits is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fe.experiments.names import load_model
from fe.models import room
from fe.models.base import Setup
from fe.models.room import check_room, host_bytes, network_bytes
from safetensors.torch import save_file


def network_sizes(pipeline: Any) -> dict[str, int]:
    """Numbers in the networks of a pipeline, by the part's name."""
    networks = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {name: sum(one.numel() for one in part.state_dict().values()) for name, part in networks.items()}


def test_what_is_stored_says_what_it_takes(tiny_folder: Path, tiny_pipeline: Callable[..., Any]) -> None:
    sizes = network_sizes(tiny_pipeline(guided=True))
    # Both names of T5's shared embedding are in its state, and one in its file.
    sizes["text_encoder_2"] -= tiny_pipeline(guided=True).text_encoder_2.shared.weight.numel()
    for name, size in sizes.items():
        assert network_bytes(tiny_folder, {name: torch.bfloat16}) == 2 * size, name
    everything = dict.fromkeys(sizes, torch.float32)
    assert network_bytes(tiny_folder, everything) == 4 * sum(sizes.values())


def test_rounded_weights_stay_small_and_second_copies_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    weights = {"rounded": torch.zeros(100, dtype=torch.uint8), "scales": torch.zeros(4, dtype=torch.float16)}
    for name in ("model.safetensors", "model.fp16.safetensors", "model.non_ema.safetensors"):
        save_file(weights, tmp_path / "unet" / name)
    (tmp_path / "unet" / "damaged.safetensors").write_bytes(b"short")
    assert network_bytes(tmp_path, {"unet": torch.float32, "vae": torch.float32}) == 100 + 4 * 4


def test_this_machine_has_some_memory() -> None:
    assert host_bytes() > 1e8
    check_room(10**8, "a small thing")


@pytest.mark.parametrize("kind", ["flux", "diffusers"])
def test_a_model_that_cannot_fit_is_refused(kind: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = network_bytes(tiny_folder, dict.fromkeys(("transformer", "text_encoder", "text_encoder_2"), torch.bfloat16))
    needed += network_bytes(tiny_folder, {"vae": torch.float32})
    monkeypatch.setattr(room, "host_bytes", lambda: float(needed))
    load_model(f"{kind}:{tiny_folder}", Setup(dtype="bfloat16"))
    with pytest.raises(ValueError, match=r"needs 0\.0 GB of memory and this machine has 0\.0 GB in all; use a narrower"):
        load_model(f"{kind}:{tiny_folder}", Setup())


def test_random_weights_that_cannot_fit_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "host_bytes", lambda: 16e9)
    with pytest.raises(ValueError, match=r"a FluxTransformer2DModel of full size needs 47\.6 GB of memory"):
        load_model("flux-dev", Setup(weights="random"))
