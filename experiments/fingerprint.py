"""What a result depends on, as short hashes: the model's weights, the case, and all that a cell is made of."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..cases.base import Case
from ..models.base import Model

if TYPE_CHECKING:
    from .rows import Row

KEY_VERSION = 3
"""Part of every key: to be raised when the same cell would come out otherwise."""

_SAMPLES = 64


def hash_model(model: Model[Any]) -> str:
    """A hash of the network's layout and of up to 64 evenly spread values of every weight: it costs little even for
    twelve thousand million weights, and every training step changes it."""
    digest = sha256()
    for name, tensor in sorted(_plain(model.network.state_dict())):
        if tensor.is_meta:
            raise ValueError(
                "the network's weights are offloaded piece by piece, so a comparison cannot tell them from others; "
                "use enable_model_cpu_offload(), or a smaller model"
            )
        flat = tensor.reshape(-1)
        picked = flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES].to("cpu", torch.float32)
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode() + picked.numpy().tobytes())
    return digest.hexdigest()[:16]


def _plain(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors by name, quantised ones as the plain tensors that they are made of."""
    for name, tensor in tensors.items():
        if is_traceable_wrapper_subclass(tensor):
            inner = {part: getattr(tensor, part) for part in tensor.__tensor_flatten__()[0]}
            yield from _plain({f"{name}.{part}": value for part, value in inner.items()})
        else:
            yield name, tensor.detach()


def hash_case(case: Case) -> str:
    """A hash of all that a case holds."""
    words = (case.id, case.source, case.target, case.kind, case.shown, case.asked)
    digest = sha256(json.dumps(words).encode())
    for tensor in (case.picture, case.truth, case.determined):
        digest.update(b"|" if tensor is None else f"|{tuple(tensor.shape)}|".encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def cell_key(row: Row, case: str, seed: int, model: str, numerics: str) -> str:
    """The identity of one result: case and model as hashes, editor and solver with their options and the code that defines
    them, steps, seed, numerics."""
    methods = [(repr(method), _code(type(method))) for method in (row.editor, row.solver)]
    what = (KEY_VERSION, case, model, row.task, row.of_truth, methods, row.steps, seed, numerics)
    return sha256(json.dumps(what).encode()).hexdigest()[:20]


@cache
def _code(kind: type) -> str:
    """A hash of the file that defines `kind`, so that the rows of an edited plug-in never pass for those of the new one.
    Empty where there is no source to read."""
    try:
        return sha256(inspect.getsource(sys.modules[kind.__module__]).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return ""


def plan_hash(keys: list[str]) -> str:
    """The identity of a whole comparison: that of all its cells, whatever their order."""
    return sha256(json.dumps(sorted(keys)).encode()).hexdigest()[:12]
