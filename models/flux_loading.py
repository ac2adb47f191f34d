"""FluxPipelines from folders and the Hugging Face hub: safetensors only, and no code from strangers."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers import FluxPipeline

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INDEX: Final = "model_index.json"
NETWORKS: Final = {
    "transformer": ("diffusers:FluxTransformer2DModel",),
    "vae": ("diffusers:AutoencoderKL", "fe.scenes.codec:PatchCodec"),
    "text_encoder": ("transformers:CLIPTextModel",),
    "text_encoder_2": ("transformers:T5EncoderModel",),
}
OTHERS: Final = {
    "scheduler": ("diffusers:FlowMatchEulerDiscreteScheduler",),
    "tokenizer": tuple(f"transformers:{name}" for name in ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast")),
    "tokenizer_2": tuple(f"transformers:{name}" for name in ("T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast")),
}
"""The classes that a model index may name: any others could be anybody's code, and would not be FLUX."""


def load_pipeline(source: str, *, device: str, dtype: str, local_only: bool) -> FluxPipeline:
    """The FluxPipeline at `source`, a folder or a hub id, on `device`, ready to evaluate. Transformer and text encoders are in
    `dtype`; the codec stays in float32, so that its round trip is the bound that it can be (and float16 overflows in it).

    Raises ValueError (one sentence) if it cannot be had, is damaged or incomplete, or is not a plain FluxPipeline.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; it must be one of {', '.join(DTYPES)}")
    index = _read_index(source, local_only)
    names = {name: _class_name(index, name, allowed, source) for name, allowed in {**NETWORKS, **OTHERS}.items()}
    with _loading(source), _quiet():
        from diffusers import FluxPipeline  # takes seconds: only when a model is wanted

        parts: dict[str, Any] = {}
        for name in NETWORKS:
            wanted = torch.float32 if name == "vae" else DTYPES[dtype]
            parts[name] = _load_network(_resolve(names[name]), source, name, wanted, local_only)
        for name in OTHERS:
            parts[name] = _resolve(names[name]).from_pretrained(source, subfolder=name, local_files_only=local_only)
        pipeline = FluxPipeline(**parts)
    _check_tokenizers(pipeline, source)
    return pipeline.to(device)


def _read_index(source: str, local_only: bool) -> dict[str, Any]:
    """The parsed model index, read before anything that it names is imported."""
    if Path(source).is_dir():
        path = Path(source, INDEX)
        if not path.is_file():
            raise ValueError(f"the folder {source!r} holds no {INDEX}; save a model there with FluxPipeline.save_pretrained")
    elif Path(source).exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        raise ValueError(f"{source!r} is neither a folder nor a hub id of the form OWNER/NAME")
    else:
        path = _index_from_hub(source, local_only)
    with _loading(source):
        index = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(index, dict) or index.get("_class_name") != "FluxPipeline":
        kind = index.get("_class_name") if isinstance(index, dict) else None
        raise ValueError(f"the model {source!r} is of class {kind!r}, which this adapter cannot drive; it needs 'FluxPipeline'")
    return index


def _index_from_hub(source: str, local_only: bool) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, INDEX, local_files_only=local_only))
    except (OSError, ValueError) as fault:
        reason = "is not on this machine" if local_only else f"cannot be fetched ({_first_line(fault)})"
        raise ValueError(
            f"the model {source!r} {reason}; `hf download {source}` fetches it "
            "(after `hf auth login`, where its page asks to accept a licence)"
        ) from fault


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


def _load_network(kind: Any, source: str, name: str, dtype: torch.dtype, local_only: bool) -> nn.Module:
    network: nn.Module
    network, info = kind.from_pretrained(
        source,
        subfolder=name,
        torch_dtype=dtype,
        use_safetensors=True,
        local_files_only=local_only,
        output_loading_info=True,
    )
    if info["missing_keys"]:  # both libraries fill these with random numbers and go on
        missing = sorted(info["missing_keys"])
        raise ValueError(f"the weights of its {name} lack {missing[0]}" + (f" and {n} more" if (n := len(missing) - 1) else ""))
    return network.eval().requires_grad_(False)


def _check_tokenizers(pipeline: FluxPipeline, source: str) -> None:
    """Tokenizers load without complaint when their vocabulary is missing, and every prompt then reads the same."""
    pairs = ((pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2))
    for tokenizer, encoder in pairs:
        if len(tokenizer) < encoder.config.vocab_size // 2:
            raise ValueError(
                f"a tokenizer of the model {source!r} knows {len(tokenizer)} of {encoder.config.vocab_size} tokens; "
                "its vocabulary file is missing, fetch the model again"
            )


@contextmanager
def _loading(source: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into one sentence."""
    try:
        yield
    except Exception as fault:  # damaged and foreign files fail in every way there is
        again = "copy it again" if Path(source).is_dir() else f"`hf download {source}` fetches what is missing"
        raise ValueError(f"the model {source!r} cannot be loaded ({_first_line(fault)}); {again}") from fault


def _first_line(fault: Exception) -> str:
    text = str(fault).strip() or type(fault).__name__
    return text.splitlines()[0].rstrip(".:")


@contextmanager
def _quiet() -> Iterator[None]:
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
            # The libraries' newest versions rename the argument, their older ones know only this name.
            warnings.filterwarnings("ignore", message=".*torch_dtype.*", category=FutureWarning)
            yield
    finally:
        for library, (bars, verbosity) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
