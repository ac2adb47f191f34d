"""What a published model takes of a GPU's memory, computed from its architecture without its weights: the weights themselves,
what an evaluation and the codec need besides, and the features that injection keeps.

`python -m fe.experiments.footprint` prints the table of docs/memory.md.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..editors.injection import Injection
from ..models.architectures import ARCHITECTURES
from ..models.base import Model, Setup
from ..models.pipelines import PipelineLoader
from ..models.quantising import rounded_layers
from .names import build_editor, build_loader, build_solver
from .presets import find_preset

MODELS_AT: Final = {"flux-dev": 1024, "sd3-medium": 1024, "sd3.5-medium": 1024, "sd3.5-large": 1024, "2rf": 512}
"""The models of the table, each with the side of its pictures in pixels."""
KINDS: Final = ("float32", "bfloat16", "int8", "nf4")
"""How weights are kept; what is rounded computes in bfloat16."""
PRESET: Final = "fireflow@paper-8"
"""The method whose features are counted."""
GUIDANCE: Final = 5.0


@dataclass(frozen=True)
class Work:
    """Bytes that are needed beside the weights: in an evaluation of FlowEdit (`editing`: source and target in one call, both
    guided), in one of FireFlow as it generates (`generating`: one picture, guided), for `drawing` (the larger of encoding and
    decoding a picture), and for the `features` that FireFlow keeps."""

    editing: int
    generating: int
    drawing: int
    features: int


@dataclass(frozen=True)
class Footprint:
    """Bytes: the weights of the `network`, of each of the `texts` (encoders) and of the `codec`, and what the `work` needs."""

    network: int
    texts: tuple[int, ...]
    codec: int
    work: Work

    def peak(self, low_memory: bool) -> int:
        """The most that an edit by FlowEdit or FireFlow takes; with `low_memory` only the part that works is on the GPU."""
        evaluating = max(self.work.editing, self.work.generating + self.work.features)
        if low_memory:
            return max(self.network + evaluating, self.codec + self.work.drawing, *self.texts)
        return self.network + sum(self.texts) + self.codec + max(evaluating, self.work.drawing)


@cache
def footprints(name: str, side: int) -> Mapping[str, Footprint]:
    """Of the model called `name` with square pictures of `side` pixels, by how its weights are kept (each of KINDS). The codec
    is in float32 always, as models are loaded."""
    loader = build_loader(name)
    assert isinstance(loader, PipelineLoader)
    assert loader.home is not None
    with torch.device("meta"):
        networks = {part: network.build() for part, network in ARCHITECTURES[loader.home].networks.items()}
    plain = {dtype: _work(name, side, dtype) for dtype in ("float32", "bfloat16")}
    found = {}
    for kind in KINDS:
        weights = weight_bytes(networks, kind)
        (network,) = (weights[part] for part in weights if part in ("transformer", "unet"))
        texts = tuple(size for part, size in weights.items() if part.startswith("text_encoder"))
        work = plain.get(kind, plain["bfloat16"])
        if kind in ROUNDED:
            written_out = _largest_rounded(networks, kind)
            work = replace(work, editing=work.editing + written_out, generating=work.generating + written_out)
        found[kind] = Footprint(network, texts, weights["vae"], work)
    return found


def weight_bytes(networks: Mapping[str, nn.Module], kind: str) -> dict[str, int]:
    """Bytes of the weights of each network of a pipeline: the codec's in float32; the others' in float32 or bfloat16, or in
    bfloat16 with those rounded that `quantise` rounds."""
    rounded = rounded_layers({name: part for name, part in networks.items() if name != "vae"}, kind) if kind in ROUNDED else {}
    return {
        name: _stored(network, 4 if name == "vae" or kind == "float32" else 2, kind, rounded.get(name, set()))
        for name, network in networks.items()
    }


def _stored(network: nn.Module, size: int, kind: str, rounded: set[str]) -> int:
    """`size`: bytes of a number that is not rounded."""
    saved = network.state_dict()
    buffers = {name: buffer for name, buffer in network.named_buffers() if name in saved}
    weights = {f"{layer}.weight" for layer in rounded}
    return sum(
        ROUNDED[kind](tensor) if name in weights else size * tensor.numel()
        for name, tensor in (*network.named_parameters(), *buffers.items())
    )


def _int8(weight: Tensor) -> int:
    """As torchao keeps it: a byte a weight, and a scale (float32) and a zero point (int8) for each output."""
    return weight.numel() + 5 * weight.shape[0]


def _nf4(weight: Tensor) -> int:
    """As bitsandbytes keeps it: half a byte a weight, a byte for every block of 64, a float32 for every 256 of these, two
    tables (16 and 256 numbers) and an offset."""
    blocks = ceil(weight.numel() / 64)
    return ceil(weight.numel() / 2) + blocks + 4 * ceil(blocks / 256) + 4 * (16 + 256 + 1)


ROUNDED: Final = {"int8": _int8, "nf4": _nf4}


def _largest_rounded(networks: Mapping[str, nn.Module], kind: str) -> int:
    """A rounded layer is written out in bfloat16 while it works."""
    return max(
        2 * networks[name].get_parameter(f"{layer}.weight").numel()
        for name, layers in rounded_layers({name: networks[name] for name in networks if name != "vae"}, kind).items()
        for layer in layers
    )


def _work(name: str, side: int, dtype: str) -> Work:
    model = build_loader(name).load(None, Setup(device="meta", dtype=dtype, weights="random"))
    preset = find_preset(PRESET)
    editor, solver = build_editor(preset.editor, preset.options), build_solver(preset.solver)
    assert isinstance(editor, Injection)
    with torch.inference_mode():
        pictures = torch.zeros(1, 3, side, side, device="meta")
        with Allocated() as encoding:
            latent = model.encode(pictures)
        with Allocated() as decoding:
            model.decode(latent)
        editing, generating = (_evaluation(model, latent, rows) for rows in (2, 1))
        features = editor.kept(model, solver, model.grid(preset.steps, latent.shape), latent).bytes
    return Work(editing, generating, max(encoding.peak, decoding.peak), features)


def _evaluation(model: Model[Any], latent: Tensor, rows: int) -> int:
    """What `rows` rows need, each under a prompt of its own that the model is guided to."""
    condition, x = model.condition(["a"] * rows, GUIDANCE), torch.cat([latent] * rows)
    evaluation = Allocated()
    with evaluation:
        model.velocity(0.5, x, condition)
    return evaluation.peak


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type it
    """Counts the bytes of all tensors that come to be inside the `with` block and live at the same time: `peak` is the most.
    It sees shapes alone, so that it works on the device "meta"; what a kernel needs inside, it does not see."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        output = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._meet(leaf.untyped_storage(), given)
        return output

    def _meet(self, storage: Any, given: set[int]) -> None:
        if id(storage) in given or storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self._live -= size


def table() -> str:
    """The table of docs/memory.md, in GB of 10^9 bytes."""
    parts = ("network", "text encoders", "codec", "FlowEdit's evaluation", "codec at work", "FireFlow's features")
    numbers = (*parts, "**an edit, all on the GPU**", "**with `--low-memory`**")
    lines = [f"| {' | '.join(('model and side', 'weights', *numbers))} |", "|" + "---|" * 2 + "---:|" * len(numbers)]
    for name, side in MODELS_AT.items():
        for kind, taken in footprints(name, side).items():
            alone = (taken.network, sum(taken.texts), taken.codec, taken.work.editing, taken.work.drawing, taken.work.features)
            sizes = [f"{size / 1e9:.2f}" for size in (*alone, taken.peak(low_memory=False), taken.peak(low_memory=True))]
            lines.append(f"| `{name}` {side} | {kind} | {' | '.join(sizes)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
