"""Pipelines of known layouts from folders and the Hugging Face hub: safetensors only, and no code from strangers."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from .base import Setup
from .preparing import placed
from .room import check_room, network_bytes
from .schedules import check_flow

INDEX: Final = "model_index.json"
FLOW_SCHEDULERS: Final = ("diffusers:FlowMatchEulerDiscreteScheduler",)
CLIP_TOKENIZERS: Final = tuple(
    f"transformers:{name}" for name in ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast")
)
T5_TOKENIZERS: Final = tuple(f"transformers:{name}" for name in ("T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast"))


@dataclass(frozen=True)
class Layout:
    """A kind of pipeline: the class names that its index may give it, the diffusers class that it is built as (the first of
    them), and for each of its parts the classes that it may be of, as "library:Class": any others could be anybody's
    code. `optional`: parts that may be absent. `unused`: parts that the class takes and that are never loaded.
    """

    pipelines: tuple[str, ...]
    networks: Mapping[str, tuple[str, ...]]
    others: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset()
    unused: tuple[str, ...] = ()


def load_pipeline(layout: Layout, source: str, setup: Setup) -> Any:
    """The pipeline of that layout at `source`, a folder or a hub id, on the setup's device, ready to evaluate. Networks are in
    the setup's dtype; the codec stays in float32, so that its round trip is the bound that it can be (and float16 overflows
    in it).

    Raises ValueError (one sentence) if it cannot be had, is damaged or incomplete, is of another layout, or is larger than this
    machine's memory.
    """
    index = read_index(source)
    kind = index.get("_class_name")
    if kind not in layout.pipelines:
        check_flow(index, source)  # the reason that counts more
        raise ValueError(
            f"the model {source!r} is of class {kind!r}, which this adapter cannot drive; it needs {layout.pipelines[0]!r}"
        )
    wanted = {**layout.networks, **layout.others}
    absent = {name for name in layout.optional if index.get(name, [None]) == [None, None]}
    names = {name: _class_name(index, name, allowed, source) for name, allowed in wanted.items() if name not in absent}
    files = str(folder_of(source))
    dtypes = {name: torch.float32 if name == "vae" else setup.torch_dtype for name in names if name in layout.networks}
    check_room(network_bytes(Path(files), dtypes), f"the model {source!r}")
    with loading(source), quiet():
        import diffusers  # takes seconds: only when a model is wanted

        parts: dict[str, Any] = dict.fromkeys((*absent, *layout.unused))
        for name, target in names.items():
            if name in dtypes:
                parts[name] = load_network(_resolve(target), files, name, dtypes[name])
            else:
                parts[name] = _resolve(target).from_pretrained(files, subfolder=name, local_files_only=True)
        pipeline = getattr(diffusers, layout.pipelines[0])(**parts)
    check_tokenizers(pipeline, source)
    return placed(pipeline, setup)


def read_index(source: str) -> dict[str, Any]:
    """The parsed model index, read before anything that it names is imported."""
    path = folder_of(source) / INDEX
    with loading(source):
        index = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(index, dict):
        raise ValueError(f"the {INDEX} of the model {source!r} is no table of parts; copy it again")
    return index


def folder_of(source: str) -> Path:
    """The folder that the model `source` is read from: itself, or what was downloaded of a hub id. (Given the hub id, the
    libraries would ask the hub about other things, whatever they are told.)
    Raises ValueError if it is not on this machine."""
    if Path(source).is_dir():
        if not Path(source, INDEX).is_file():
            raise ValueError(f"the folder {source!r} holds no {INDEX}; save a pipeline there with its save_pretrained")
        return Path(source)
    if Path(source).exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        raise ValueError(f"{source!r} is neither a folder nor a hub id of the form OWNER/NAME")
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, INDEX)
    if not isinstance(found, str):
        raise ValueError(
            f"the model {source!r} is not on this machine; `hf download {source}` fetches it (after `hf auth login`, where its "
            "page asks to accept a licence)"
        )
    return Path(found).parent


def _class_name(index: Mapping[str, Any], name: str, allowed: tuple[str, ...], source: str) -> str:
    """The "library:Class" of a part, held to those `allowed`."""
    entry = index.get(name)
    named = ":".join(map(str, entry)) if isinstance(entry, list) else str(entry)
    # Version 5 of transformers writes PreTrainedTokenizerFast under the name of its new base class.
    named = named.replace("transformers:TokenizersBackend", "transformers:PreTrainedTokenizerFast")
    if named not in allowed:
        raise ValueError(f"the {name} of the model {source!r} is {named!r}; it must be {' or '.join(allowed)}")
    return named


def _resolve(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def load_network(kind: Any, source: str, name: str, dtype: torch.dtype) -> nn.Module:
    """The part `name` of class `kind`, ready to evaluate. Raises ValueError if its files lack weights."""
    network: nn.Module
    network, info = kind.from_pretrained(
        source,
        subfolder=name,
        torch_dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:  # both libraries fill these with random numbers and go on
        missing = sorted(info["missing_keys"])
        raise ValueError(f"the weights of its {name} lack {missing[0]}" + (f" and {n} more" if (n := len(missing) - 1) else ""))
    return network.eval().requires_grad_(False)


def check_tokenizers(pipeline: Any, source: str) -> None:
    """Raise ValueError for a tokenizer without words: they load without complaint when their vocabulary is missing, and
    every prompt then reads the same."""
    parts = pipeline.components
    for name in parts:
        encoder = parts.get(name.replace("tokenizer", "text_encoder"))
        if not name.startswith("tokenizer") or parts[name] is None or encoder is None:
            continue
        known = len(getattr(parts[name], "tokenizer", parts[name]))  # or it is part of a processor
        wanted = encoder.config.get_text_config().vocab_size
        if known < wanted // 2:
            raise ValueError(
                f"a tokenizer of the model {source!r} knows {known} of {wanted} tokens; "
                "its vocabulary file is missing, fetch the model again"
            )


@contextmanager
def loading(source: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into one sentence."""
    try:
        yield
    except Exception as fault:  # damaged and foreign files fail in every way there is
        again = "copy it again" if Path(source).is_dir() else f"`hf download {source}` fetches what is missing"
        raise ValueError(f"the model {source!r} cannot be loaded ({first_line(fault)}); {again}") from fault


def first_line(fault: Exception) -> str:
    """The first line of its message, to stand inside a sentence."""
    text = str(fault).strip() or type(fault).__name__
    return text.splitlines()[0].rstrip(".:")


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and log lines of other libraries inside: what matters in them is checked and raised here."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [(library.is_progress_bar_enabled(), library.get_verbosity()) for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
        library.set_verbosity(library.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Of arguments that only the libraries' newest versions call otherwise, and of old checkpoints that they correct.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for library, (bars, verbosity) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
