"""Weights rounded to fewer bits after they are loaded: int8 by torchao, nf4 (Dettmers et al. 2023, arXiv 2305.14314) by
bitsandbytes. What a layer computes in, and what it gives, stays of the network's dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

import torch
from torch import nn

MODULES: Final = {"int8": "torchao.quantization", "nf4": "bitsandbytes.nn"}
SMALL: Final = 0.1
"""Networks with less than this share of the largest one's weights stay as they are: CLIP beside T5, say."""


def quantise(pipeline: Any, kind: str, device: torch.device) -> None:
    """Round the linear layers in the blocks of the pipeline's largest networks, its codec excepted, to `kind` ("int8" or
    "nf4"), each on `device`, where it then stays. What stands before and after the blocks keeps its precision.

    Raises ValueError (one sentence) if the package that can do it is missing.
    """
    try:
        library = import_module(MODULES[kind])
    except ImportError as fault:
        package = MODULES[kind].partition(".")[0]
        raise ValueError(f"{package} rounds weights to {kind}, and it is not installed: pip install {package}") from fault
    networks = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module) and name != "vae"}
    for name, layers in rounded_layers(networks, kind).items():
        _WAYS[kind](networks[name], layers, library, device)


def rounded_layers(networks: Mapping[str, nn.Module], kind: str) -> dict[str, set[str]]:
    """The names of the layers that `quantise` rounds to `kind`, by the network that they are in."""
    weights = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    large = [name for name in networks if weights[name] >= SMALL * max(weights.values())]
    return {name: {layer for layer in _layers(networks[name]) if kind != "nf4" or not _of_t5(layer)} for name in large}


def _of_t5(layer: str) -> bool:
    """T5 brings what goes into this layer to the dtype of its weights, which nf4 would make uint8."""
    return layer.rpartition(".")[2] == "wo"


def _layers(network: nn.Module) -> set[str]:
    """The names of the linear layers inside lists of modules, which is where networks have their blocks."""
    blocks = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    linear = [name for name, module in network.named_modules() if type(module) is nn.Linear]
    return {name for name in linear if any(name.startswith(f"{block}.") for block in blocks)}


def _int8(network: nn.Module, layers: set[str], library: Any, device: torch.device) -> None:
    library.quantize_(network, library.Int8WeightOnlyConfig(), lambda module, name: name in layers, device=device)


def _nf4(network: nn.Module, layers: set[str], library: Any, device: torch.device) -> None:
    for name in layers:
        parent, _, last = name.rpartition(".")
        old = network.get_submodule(name)
        assert isinstance(old, nn.Linear)
        new = library.Linear4bit(
            old.in_features, old.out_features, bias=False, compute_dtype=old.weight.dtype, quant_type="nf4", device="meta"
        )
        new.weight = library.Params4bit(old.weight.data, requires_grad=False, quant_type="nf4", module=new)
        new.bias = old.bias
        setattr(network.get_submodule(parent), last, new.to(device))  # moving is what rounds


_WAYS: Final[dict[str, Callable[[nn.Module, set[str], Any, torch.device], None]]] = {"int8": _int8, "nf4": _nf4}
