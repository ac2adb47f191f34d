"""What a setup asks for beyond loading: rounded weights, parts that come to the device one by one, compiled blocks."""

from __future__ import annotations

import os
import shutil
from typing import Any, Final, TypeVar

import torch
from torch import nn

from .base import Model, Setup
from .fitting import fitting
from .quantising import quantise

COMPILERS: Final = ("c++", "g++", "clang++", "cl")

AnyModel = TypeVar("AnyModel", bound=Model[Any])


def placed(pipeline: Any, setup: Setup) -> Any:
    """`pipeline`, loaded on the CPU, where and as `setup` wants it.

    With low memory, the codec works in tiles (a codec of diffusers; the scenes model's is small), and each part comes to the
    device when it works and leaves when another one does; a CPU has nowhere else to keep them.
    Raises ValueError (one sentence) if the package that rounds weights is missing, or the device's memory does not suffice.
    """
    device = torch.device(setup.device)
    if setup.quantise != "none":
        fitting(lambda: quantise(pipeline, setup.quantise, device), setup)
    if setup.low_memory:
        _tile(pipeline.components.get("vae"))
        if device.type != "cpu":
            pipeline.enable_model_cpu_offload(device=device)
            return pipeline
    return fitting(lambda: pipeline.to(device), setup)


def finished(model: AnyModel, setup: Setup) -> AnyModel:
    """`model`, which was loaded with `setup`, knowing so; with its blocks compiled if that was asked for.
    Raises ValueError if there is nothing to compile, or nothing to compile with."""
    model.setup = setup
    if setup.compiled:
        compile_blocks(model.network)
    return model


def compile_blocks(network: nn.Module, backend: str = "inductor") -> None:
    """Compile each block that `network` repeats, in place: quicker than the whole, and what counts its calls stays outside.
    Raises ValueError if there are none, or if there is no C++ compiler to do it with."""
    blocks = repeated_blocks(network)
    if not blocks:
        raise ValueError(f"{type(network).__name__} repeats no blocks that could be compiled; leave out --compile")
    if backend == "inductor" and not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
        raise ValueError("compiling needs a C++ compiler, and there is none here; install g++, or leave out --compile")
    for block in blocks:
        block.compile(backend=backend)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The transformer blocks inside a UNet, or the blocks in the lists right below a transformer."""
    from diffusers.models.attention import BasicTransformerBlock  # takes seconds: only when something is compiled

    inside = [module for module in network.modules() if isinstance(module, BasicTransformerBlock)]
    return inside or [block for part in network.children() if isinstance(part, nn.ModuleList) for block in part]


def compiled_whole(network: nn.Module) -> bool:
    """Whether somebody compiled `network` as a whole: hooks inside it that come later are left out without a word."""
    from torch._dynamo import OptimizedModule  # loads the compiler, which whoever compiled it has loaded

    return network._compiled_call_impl is not None or isinstance(network, OptimizedModule)


def is_compiled(network: nn.Module) -> bool:
    """Whether `network` is compiled, as a whole or in parts: then its first calls take far longer than later ones."""
    return compiled_whole(network) or any(module._compiled_call_impl is not None for module in network.modules())


def _tile(vae: Any) -> None:
    from ..scenes.codec import PatchCodec  # brings in diffusers

    if vae is not None and not isinstance(vae, PatchCodec):
        vae.enable_tiling()
