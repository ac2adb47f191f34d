"""Weights of pretrained networks: whether they are on this machine, and the command that fetches them.

Nothing here asks a network or loads anything. What is not here is told in one sentence and fetched by the user.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""What every network of a hub has: its shape, and its weights in the one format that cannot run code while it is read."""

_HUB_ID = re.compile(r"(?!.*(--|\.\.))[\w.-]+/[\w.-]+")
_INDEX = "model.safetensors.index.json"


def hub_folder(repo: str) -> Path | None:
    """The folder on this machine that holds a network: `repo` itself, or what was downloaded of the hub id OWNER/NAME (HF_HOME
    and HF_HUB_CACHE say where). None if there is none. Networks are loaded from the folder and not by the id: given an id, the
    libraries ask the hub about other things, whatever they are told."""
    if Path(repo).is_dir():
        return Path(repo)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, CONFIG)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def hub_missing(repo: str, files: Sequence[str] = (CONFIG, WEIGHTS)) -> str:
    """What of a network is not on this machine and the command that fetches it, in one sentence; "" if all is here.

    `repo` is a hub id OWNER/NAME or a folder, `files` the names of the files that are needed. Weights must be safetensors,
    whole or in parts that an index lists; pickles are not looked for. Of openai/clip-vit-*, facebook/dino-vit* and
    facebook/dinov2-* the hub has safetensors; weights that are published as pytorch_model.bin alone must be converted first
    (`save_pretrained` of transformers writes safetensors) and named as a folder.
    """
    folder = hub_folder(repo)
    missing = [name for name in files if folder is None or not _holds(folder, name)]
    if not missing:
        return ""
    if Path(repo).is_dir():
        return f"the folder {repo!r} lacks {', '.join(missing)}; put them there, or name a folder or hub id that has them"
    if not _HUB_ID.fullmatch(repo):
        return f"{repo!r} is neither a folder nor a hub id of the form OWNER/NAME"
    return f"{repo} is not on this machine; fetch it with: hf download {repo} {' '.join(files)}"


def checkpoint_path(url: str) -> Path:
    """Where torch.hub keeps the checkpoint that is published at `url` (TORCH_HOME says where), whether it is there or not."""
    from torch import hub

    return Path(hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def checkpoint_missing(url: str, what: str) -> str:
    """Whether the weights of `what`, a checkpoint of torch.hub, are not on this machine, and the command that fetches them, in
    one sentence; "" if they are here."""
    path = checkpoint_path(url)
    if path.is_file():
        return ""
    command = shlex.join(["curl", "-L", "--fail", "--create-dirs", "-o", str(path), url])
    return f"the weights of {what} are not on this machine; fetch them with: {command}"


def _holds(folder: Path, name: str) -> bool:
    if (folder / name).is_file():
        return True
    if name != WEIGHTS or not (folder / _INDEX).is_file():
        return False
    parts = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    return all((folder / part).is_file() for part in parts)
