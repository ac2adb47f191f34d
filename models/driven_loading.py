"""Pipelines of any layout from folders and the Hugging Face hub: classes of diffusers and transformers only, safetensors
only, and no code from strangers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .base import Setup
from .driven_kind import check_class
from .loading import check_tokenizers, folder_of, load_network, loading, quiet, read_index
from .preparing import placed
from .room import check_room, network_bytes
from .schedules import check_flow

LIBRARIES = ("diffusers", "transformers")


def load_any(source: str, setup: Setup) -> Any:
    """The pipeline at `source`, a folder or a hub id, on the setup's device, ready to evaluate. Networks are in the setup's
    dtype; the codec stays in float32.

    Raises ValueError (one sentence) if it cannot be had, is damaged or incomplete, names a class of another library, is of a
    class that cannot be driven, or is larger than this machine's memory.
    """
    index = read_index(source)
    check_flow(index, source)
    with quiet():
        kind = _pipeline_class(index.get("_class_name"), source)
        check_class(kind)  # before its weights are read, which may take minutes
        classes = {name: _part_class(name, entry, source) for name, entry in index.items() if _is_part(name, entry)}
        files = str(folder_of(source))
        networks = [name for name, found in classes.items() if found is not None and issubclass(found, nn.Module)]
        dtypes = {name: torch.float32 if name == "vae" else setup.torch_dtype for name in networks}
        check_room(network_bytes(Path(files), dtypes), f"the model {source!r}")
        with loading(source):
            parts = {name: _part(found, files, name, dtypes) for name, found in classes.items()}
            pipeline = kind(**parts, **_settings(kind, index))
    check_tokenizers(pipeline, source)
    return placed(pipeline, setup)


def _pipeline_class(name: Any, source: str) -> Any:
    import diffusers  # takes seconds: only when a model is wanted

    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise ValueError(
            f"the model {source!r} is of class {name!r}, which is no pipeline of the installed diffusers; update it"
        )
    return kind


def _is_part(name: str, entry: Any) -> bool:
    """Whether an entry of the index is a part of the pipeline: a library and a class, or twice null where it is absent."""
    kinds = {type(value) for value in entry} if isinstance(entry, list) else set()
    return not name.startswith("_") and isinstance(entry, list) and len(entry) == 2 and kinds <= {str, type(None)}


def _part_class(name: str, entry: list[str | None], source: str) -> Any:
    """The class of a part, None where the part is absent."""
    import diffusers
    import transformers

    library, kind_name = entry
    if library is None:
        return None
    kinds = (nn.Module, diffusers.SchedulerMixin, transformers.PreTrainedTokenizerBase, transformers.ProcessorMixin)
    kind = None
    if library in LIBRARIES and kind_name is not None:
        kind = getattr({"diffusers": diffusers, "transformers": transformers}[library], kind_name, None)
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        raise ValueError(
            f"the {name} of the model {source!r} is {library}:{kind_name}, which is no network, scheduler or tokenizer of the "
            "installed diffusers or transformers; nothing else is loaded"
        )
    return kind


def _part(kind: Any, source: str, name: str, dtypes: Mapping[str, torch.dtype]) -> Any:
    """A part of class `kind` (None: absent), in its dtype if it is a network."""
    if kind is None:
        return None
    if name in dtypes:
        return load_network(kind, source, name, dtypes[name])
    return kind.from_pretrained(source, subfolder=name, local_files_only=True)


def _settings(kind: Any, index: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the index that are plain values, for what the pipeline can do without (is_distilled, say)."""
    known = inspect.signature(kind.__init__).parameters
    plain = {name: value for name, value in index.items() if name in known and not _is_part(name, value)}
    return {name: value for name, value in plain.items() if known[name].default is not inspect.Parameter.empty}
