"""The small FLUX of the scenes world: how it is built, fed, saved and found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .codec import PatchCodec, fit_codec
from .data import TRAIN_SEED, draw_batch
from .render import render_indices
from .text import MAX_TOKENS, clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPTextModel, T5EncoderModel

WEIGHTS: Final = Path(__file__).parent / "weights"
"""The shipped pipeline, in the layout of `FluxPipeline.save_pretrained`."""

FASTEST: Final = 10.0
"""The fastest wave of time that the network hears, in radians from noise to picture."""


@dataclass(frozen=True)
class Shape:
    """How large the network is; `components` numbers an image token, `width` is a multiple of 32 (heads of 32)."""

    width: int = 192
    double_blocks: int = 2
    single_blocks: int = 4
    text_width: int = 128
    components: int = 72


class Network(nn.Module):
    """The three parts that are trained together: transformer, CLIP text encoder and T5 encoder."""

    def __init__(self, transformer: FluxTransformer2DModel, clip: CLIPTextModel, t5: T5EncoderModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.clip = clip
        self.t5 = t5

    def embed(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt embeddings (B, 16, text width) and pooled embeddings (B, text width) of token ids (B, 16)."""
        return self.t5(t5_ids)[0], self.clip(clip_ids).pooler_output

    def forward(
        self, x: Tensor, t: Tensor, guidance: Tensor, prompts: Tensor, pooled: Tensor, text_ids: Tensor, image_ids: Tensor
    ) -> Tensor:
        """Velocity (B, tokens, components) at packed latents x of that shape, times t (B,) in [0, 1] and guidance (B,)."""
        velocity: Tensor = self.transformer(
            hidden_states=x,
            timestep=t,
            guidance=guidance,
            encoder_hidden_states=prompts,
            pooled_projections=pooled,
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return velocity


def build_network(shape: Shape, seed: int = 0) -> Network:
    """A network with random weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            in_channels=shape.components,
            num_layers=shape.double_blocks,
            num_single_layers=shape.single_blocks,
            attention_head_dim=32,
            num_attention_heads=shape.width // 32,
            joint_attention_dim=shape.text_width,
            pooled_projection_dim=shape.text_width,
            guidance_embeds=True,
            axes_dims_rope=(4, 14, 14),  # few for the axis that FLUX leaves unused, most for row and column
        )
        _smooth(transformer)
        return Network(transformer, clip_encoder(shape.text_width), t5_encoder(shape.text_width))


@torch.no_grad()
def _smooth(transformer: FluxTransformer2DModel) -> None:
    """Make a network blind to the fast waves in which FLUX is told time and guidance, for good: their weights get no gradient.

    The fastest wave of the time t is cos(1000 t). A network that hears it is rough at a scale that no solver resolves in 28
    steps, and methods of second order and fourth do not show their order.
    """
    embedding = transformer.time_text_embed
    for heard in (embedding.timestep_embedder, embedding.guidance_embedder):
        weight = heard.linear_1.weight  # (width, 256): 128 cosines, from fast to slow, then 128 sines
        waves = weight.shape[1] // 2
        speeds = 1000.0 * 10000.0 ** (-torch.arange(waves) / waves)  # radians for one unit of time
        slow = (speeds <= FASTEST).float().repeat(2)
        weight.mul_(slow)
        weight.register_hook(lambda gradient, slow=slow: gradient * slow.to(gradient.device))


def build_codec(components: int = Shape().components, pictures: int = 4000) -> PatchCodec:
    """The codec fitted to pictures of the training world."""
    return fit_codec(render_indices(*draw_batch(pictures, TRAIN_SEED - 1)) * 2.0 - 1.0, components)


def pack(latents: Tensor) -> Tensor:
    """FLUX's packing: latents (B, C, H, W) to tokens (B, H/2 * W/2, 4 C)."""
    b, c, h, w = latents.shape
    return latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def token_ids(height: int = 8, width: int = 8) -> tuple[Tensor, Tensor]:
    """Places of text (16, 3) and image tokens (height * width, 3) as FluxPipeline makes them."""
    image = torch.zeros(height, width, 3)
    image[..., 1] = torch.arange(height)[:, None]
    image[..., 2] = torch.arange(width)[None, :]
    return torch.zeros(MAX_TOKENS, 3), image.reshape(-1, 3)


def build_pipeline(network: Network, codec: PatchCodec) -> FluxPipeline:
    """The network as a FluxPipeline with FLUX's shifted time grid."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=codec,
        text_encoder=network.clip,
        tokenizer=clip_tokenizer(),
        text_encoder_2=network.t5,
        tokenizer_2=t5_tokenizer(),
        transformer=network.transformer,
    )


def save_pipeline(network: Network, codec: PatchCodec, folder: Path) -> None:
    """Write the pipeline for `FluxPipeline.from_pretrained(folder)`: safetensors and JSON."""
    build_pipeline(network, codec).save_pretrained(folder, safe_serialization=True)
    make_portable(folder)


def make_portable(folder: Path) -> None:
    """Rewrite names in a saved pipeline so that it loads wherever `fe` is installed, under transformers 4 and 5 alike.

    Version 5 renamed the tokenizer class and dropped a prefix of CLIP's weights, which 4 then silently leaves random; 5
    still reads 4's names.
    """
    index = folder / "model_index.json"
    entries = json.loads(index.read_text())
    entries["vae"] = ["fe.scenes.codec", "PatchCodec"]
    entries["tokenizer"] = entries["tokenizer_2"] = ["transformers", "PreTrainedTokenizerFast"]
    index.write_text(json.dumps(entries, indent=2) + "\n")
    for name in ("tokenizer", "tokenizer_2"):
        config = folder / name / "tokenizer_config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2)
        )
    clip = folder / "text_encoder" / "model.safetensors"
    weights = {"text_model." + name.removeprefix("text_model."): value for name, value in load_file(clip).items()}
    save_file(weights, clip, metadata={"format": "pt"})
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # some are written for the owner alone


def load_pipeline(folder: Path = WEIGHTS) -> FluxPipeline:
    """The shipped pipeline, or another folder of the same layout, from local files only."""
    return FluxPipeline.from_pretrained(folder, local_files_only=True)
