"""FluxPipelines from folders and the Hugging Face hub: safetensors only, and no code from strangers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import FluxPipeline

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INDEX = "model_index.json"
TRUSTED = ("diffusers", "transformers", "fe.scenes.codec")
"""diffusers imports whatever library an index names for a component: it may name these and no others."""


def load_pipeline(source: str, *, device: str, dtype: str, local_only: bool) -> FluxPipeline:
    """The FluxPipeline at `source`, a folder or a hub id, on `device` with every network in `dtype`, ready to evaluate.

    Raises ValueError (one sentence) if it cannot be had, is no FluxPipeline or names components of an untrusted library.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; it must be one of {', '.join(DTYPES)}")
    from diffusers import FluxPipeline  # takes seconds: only when a model is wanted

    _check_index(_index(source, local_only), source)
    with _loading(source), _quiet():
        pipeline = FluxPipeline.from_pretrained(
            source, torch_dtype=DTYPES[dtype], use_safetensors=True, local_files_only=local_only
        ).to(device)
    _check_tokenizers(pipeline, source)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.eval().requires_grad_(False)
    return pipeline


def _index(source: str, local_only: bool) -> dict[str, Any]:
    """The parsed model index, read before anything that it names is imported."""
    if Path(source).is_dir():
        path = Path(source, INDEX)
        if not path.is_file():
            raise ValueError(f"the folder {source!r} holds no {INDEX}; save a model there with FluxPipeline.save_pretrained")
    elif Path(source).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(f"{source!r} is neither a folder nor a hub id of the form OWNER/NAME")
    else:
        from huggingface_hub import hf_hub_download

        try:
            path = Path(hf_hub_download(source, INDEX, local_files_only=local_only))
        except (OSError, ValueError) as fault:
            reason = "is not on this machine" if local_only else f"cannot be fetched ({_first_line(fault)})"
            raise ValueError(
                f"the model {source!r} {reason}; `hf download {source}` fetches it "
                "(after `hf auth login`, if its page asks to accept a licence)"
            ) from fault
    with _loading(source):
        index: dict[str, Any] = json.loads(path.read_text())
    return index


def _check_index(index: dict[str, Any], source: str) -> None:
    if index.get("_class_name") != "FluxPipeline":
        raise ValueError(
            f"the model {source!r} is a {index.get('_class_name')}, which this adapter cannot drive; it needs a FluxPipeline"
        )
    for name, entry in index.items():
        if isinstance(entry, list) and entry[0] is not None and entry[0] not in TRUSTED:
            raise ValueError(
                f"the model {source!r} wants to import its {name} from {entry[0]!r}, which may run any code; "
                f"only {', '.join(TRUSTED)} are trusted"
            )


def _check_tokenizers(pipeline: FluxPipeline, source: str) -> None:
    """Tokenizers load without complaint when their vocabulary is missing, and every prompt then reads the same."""
    pairs = ((pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2))
    for tokenizer, encoder in pairs:
        if len(tokenizer) < encoder.config.vocab_size // 2:
            raise ValueError(
                f"a tokenizer of the model {source!r} knows {len(tokenizer)} of {encoder.config.vocab_size} tokens; "
                "its vocabulary file is missing, download the model again"
            )


@contextmanager
def _loading(source: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into one sentence."""
    try:
        yield
    except Exception as fault:  # damaged and foreign files fail in every way there is
        raise ValueError(
            f"the model {source!r} cannot be loaded ({_first_line(fault)}); if files are missing or damaged, "
            f"`hf download` fetches them again"
        ) from fault


def _first_line(fault: Exception) -> str:
    text = str(fault).strip() or type(fault).__name__
    return text.splitlines()[0].rstrip(".:")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of other libraries inside: a caller may show one of its own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
