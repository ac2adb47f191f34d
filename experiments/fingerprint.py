"""What a result depends on, as short hashes: the model's weights, the case, and all that a cell is made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..cases.base import Case
from ..metrics.base import Score, Task
from ..models.base import Model
from .sources import hash_code

if TYPE_CHECKING:
    from .rows import Row

KEY_VERSION = 4
"""Part of every key: to be raised when the same cell would come out otherwise by a change that no other part of a key shows,
such as one of how cells are run."""

KEYS, NUMERICS = "the version of keys", "how it computes"

_SAMPLES = 64


def hash_model(model: Model[Any]) -> str:
    """A hash of all that the model is made of. Raises ValueError where its weights cannot be read."""
    return _short(sorted(model_parts(model).items()))


def model_parts(model: Model[Any]) -> dict[str, str]:
    """What a model is made of, as hashes by name: its networks, its settings, and the code of its class.
    Raises ValueError where its weights cannot be read."""
    parts = {
        _part(name): _short(part) if isinstance(part, str) else _hash_network(part) for name, part in model.parts().items()
    }
    return parts | {_code_of(model): hash_code(type(model))}


def _hash_network(network: nn.Module) -> str:
    """A hash of a network's layout and of up to 64 evenly spread values of every weight: it costs little even for
    twelve thousand million weights, and every training step changes it."""
    digest = sha256()
    for name, tensor in sorted(_plain(network.state_dict())):
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
    region = () if case.mask is None else (case.mask,)
    for tensor in (case.picture, case.truth, case.determined, *region):
        digest.update(b"|" if tensor is None else f"|{tuple(tensor.shape)}|".encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def cell_key(row: Row, case: str, seed: int, model: str, numerics: str) -> str:
    """The identity of one result: case and model as hashes, editor and solver with their options and the code that they are
    made of, steps, seed, numerics."""
    methods = [(repr(method), hash_code(type(method))) for method in (row.editor, row.solver)]
    what = (KEY_VERSION, case, model, row.task, row.of_truth, methods, row.steps, seed, numerics)
    return sha256(json.dumps(what).encode()).hexdigest()[:20]


def ingredients(
    model: Model[Any], numerics: str, rows: Iterable[Row], cases: Mapping[str, str], metrics: Iterable[Score]
) -> dict[str, str]:
    """What the keys of a comparison are made of, apart from what its records say: by name, mostly as hashes. So that it can
    be told later which part is another one. The code of the metrics is noted too, which is in no key, but in the identity of
    the comparison. cases: their hashes by id."""
    things = [thing for row in rows for thing in (row.editor, row.solver)]
    return {
        KEYS: str(KEY_VERSION),
        NUMERICS: numerics,
        **model_parts(model),
        **{_code_of(thing): hash_code(type(thing)) for thing in (*things, *metrics)},
        **{_case(case): digest for case, digest in cases.items()},
    }


def bearing(model: Model[Any], row: Row, case: Case, metrics: Iterable[Score]) -> list[str]:
    """The names of those that one cell and its scores depend on."""
    things = (model, row.editor, row.solver, *metrics)
    return [KEYS, NUMERICS, *map(_part, model.parts()), *map(_code_of, things), _case(case.id)]


def is_part(name: str) -> bool:
    """Whether it is a part of the model that goes by that name."""
    return name.startswith(_part(""))


def _part(name: str) -> str:
    return f"the model's {name}"


def _code_of(thing: object) -> str:
    return f"the code of {type(thing).__module__}.{type(thing).__qualname__}"


def _case(case: str) -> str:
    return f"the case {case}"


def hash_metrics(metrics: Mapping[Task, Mapping[str, Score]]) -> str:
    """A hash of what results are scored with: the metrics of each task, by name, with their options and their code."""
    return _short(sorted((task, name, *_metric(one)) for task, named in metrics.items() for name, one in named.items()))


def _metric(metric: Score) -> list[str]:
    return [hash_code(type(metric)), *([repr(metric)] if is_dataclass(metric) else [])]


def plan_hash(keys: Iterable[str], metrics: str) -> str:
    """The identity of a whole comparison: that of all its cells, whatever their order, and of its metrics."""
    return sha256(json.dumps((sorted(keys), metrics)).encode()).hexdigest()[:12]


def _short(what: object) -> str:
    return sha256(json.dumps(what).encode()).hexdigest()[:16]
