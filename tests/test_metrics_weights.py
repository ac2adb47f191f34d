"""Where weights are looked for, what is said where they are not here, and how long features are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fe.metrics.networks import CHUNK, Memory, compute_device, in_chunks
from fe.metrics.weights import checkpoint_missing, checkpoint_path, hub_folder, hub_missing
from torch import Tensor

URL = "https://example.org/models/trunk-1a2b.pth?download=true"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this test, empty; whoever asks a network fails."""

    def refused(*args: Any, **named: Any) -> Any:
        raise AssertionError("the network was asked")

    folder = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    return folder


def downloaded(cache: Path, repo: str, *files: str) -> Path:
    """Files of a repository as the hub's library lays them down."""
    place = cache / f"models--{repo.replace('/', '--')}"
    snapshot = place / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abcd")
    for name in files:
        (snapshot / name).write_text("{}")
    return snapshot


def test_what_was_downloaded_is_found(cache: Path) -> None:
    snapshot = downloaded(cache, "owner/name", "config.json", "model.safetensors")
    assert hub_missing("owner/name") == ""
    assert hub_folder("owner/name") == snapshot
    assert hub_missing("owner/other") == (
        "owner/other is not on this machine; fetch it with: hf download owner/other config.json model.safetensors"
    )
    assert hub_folder("owner/other") is None


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_download_that_was_cut_short_is_not_enough(cache: Path, lost: str) -> None:
    files = ("config.json", "model.safetensors", "tokenizer.json")
    downloaded(cache, "owner/name", *(name for name in files if name != lost))
    assert hub_missing("owner/name", files).endswith(f"hf download owner/name {' '.join(files)}")


def test_pickles_do_not_count(cache: Path) -> None:
    downloaded(cache, "owner/name", "config.json", "pytorch_model.bin")
    assert "hf download owner/name config.json model.safetensors" in hub_missing("owner/name")


def test_weights_in_parts_are_found_if_all_are_there(cache: Path) -> None:
    snapshot = downloaded(cache, "owner/name", "config.json", "one.safetensors", "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert hub_missing("owner/name") == ""
    assert hub_missing("owner/name", ("model.safetensors", "tokenizer.json")) != ""
    (snapshot / "two.safetensors").unlink()
    assert hub_missing("owner/name") != ""


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "config.json").touch()
    assert hub_missing(str(folder), ("config.json", "model.safetensors", "tokenizer.json")) == (
        f"the folder {str(folder)!r} lacks model.safetensors, tokenizer.json; "
        "put them there, or name a folder or hub id that has them"
    )
    (folder / "model.safetensors").touch()
    assert hub_missing(str(folder)) == ""
    assert hub_folder(str(folder)) == folder


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "/no/such/folder", "two words/x", "a--b/c", "../name"])
def test_what_can_be_neither_says_so(name: str) -> None:
    assert hub_missing(name) == f"{name!r} is neither a folder nor a hub id of the form OWNER/NAME"


def test_the_cache_lies_where_the_environment_says(tmp_path: Path) -> None:
    downloaded(tmp_path / "home" / "hub", "owner/name", "config.json", "model.safetensors")
    script = "from fe.metrics.weights import hub_missing; print(repr(hub_missing('owner/name')))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))}
    for home, said in (("home", "''"), ("elsewhere", "hf download")):
        told = {**environment, "HF_HOME": str(tmp_path / home)}
        done = subprocess.run([sys.executable, "-c", script], env=told, capture_output=True, text=True, check=True)
        assert said in done.stdout


def test_a_checkpoint_of_torch_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "torch home"
    monkeypatch.setenv("TORCH_HOME", str(home))
    path = home / "hub" / "checkpoints" / "trunk-1a2b.pth"
    assert checkpoint_path(URL) == path
    assert checkpoint_missing(URL, "the trunk") == (
        f"the weights of the trunk are not on this machine; fetch them with: curl -L --fail --create-dirs -o '{path}' '{URL}'"
    )
    path.parent.mkdir(parents=True)
    path.touch()
    assert checkpoint_missing(URL, "the trunk") == ""


def test_devices() -> None:
    assert compute_device("cpu") == torch.device("cpu")
    assert compute_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="there is no device cuda:99 here"):
        compute_device("cuda:99")
    with pytest.raises(ValueError, match="'fast' is no device"):
        compute_device("fast")


def test_rows_are_made_in_chunks_and_do_not_keep_them() -> None:
    sizes = []

    def make(things: Any) -> Tensor:
        sizes.append(len(things))
        return torch.tensor(things, dtype=torch.float64)[:, None] * torch.ones(5, requires_grad=True)

    rows = in_chunks(range(CHUNK + 3), make)
    assert sizes == [CHUNK, 3]
    assert [row[0].item() for row in rows] == list(range(CHUNK + 3))
    assert all(row.dtype == torch.float32 and not row.requires_grad and not row.is_inference() for row in rows)
    assert all(row.untyped_storage().nbytes() == row.nbytes == 20 for row in rows)


class Maker:
    """Makes features of 100 bytes and remembers of what."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.asked: list[list[str]] = []

    def of(self, keys: str) -> list[float]:
        def make(places: Any) -> list[Tensor]:
            self.asked.append([keys[place] for place in places])
            return [torch.full((25,), float(ord(keys[place]))) for place in places]

        return [features[0].item() for features in self.memory.recall(list(keys), make)]


def test_features_are_made_once_and_given_in_the_order_asked_for() -> None:
    maker = Maker(Memory(most=1000))
    assert maker.of("abca") == [97, 98, 99, 97]
    assert maker.of("cdb") == [99, 100, 98]
    assert maker.of("abcd") == [97, 98, 99, 100]
    assert maker.of("") == []
    assert maker.asked == [["a", "b", "c"], ["d"]]


def test_what_was_not_used_for_longest_goes_first() -> None:
    maker = Maker(Memory(most=300))
    maker.of("abc")
    maker.of("a")
    maker.of("d")  # b goes
    maker.of("acd")
    assert maker.asked == [["a", "b", "c"], ["d"]]
    maker.of("b")  # a goes
    maker.of("cd")
    maker.of("a")
    assert maker.asked[2:] == [["b"], ["a"]]


def test_what_does_not_fit_is_given_all_the_same() -> None:
    maker = Maker(Memory(most=250))
    assert maker.of("abcd") == [97, 98, 99, 100]
    assert maker.of("cd") == [99, 100]
    assert maker.asked == [["a", "b", "c", "d"]]
    assert Maker(Memory(most=10)).of("ab") == [97, 98]
