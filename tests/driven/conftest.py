"""Toy pipelines of the real classes, one of each kind that the generic adapter is tried on: random weights, and a word-level
tokenizer in place of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "blue", "circle", "square", "on", "grey", "image", "user", "system", "the", "of")
CHAT = "{% for message in messages %}user {{ message.content }} {% endfor %}"


def tokenizer(length: int = 48) -> Any:
    """A word-level one, of the class that transformers gives every tokenizer read from a tokenizer.json."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
        chat_template=CHAT,
    )


def language_model(kind: str, width: int, layers: int = 2, **more: Any) -> Any:
    """The headless language model `kind` (Gemma2, Qwen3, Glm)."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(WORDS),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=width // 2,
        pad_token_id=0,
        **more,
    )
    return getattr(transformers, f"{kind}Model")(config)


def codec(levels: int = 2, shift: float | None = 0.1159) -> AutoencoderKL:
    """One with 2^(levels - 1) pixels a latent."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.3611,
        shift_factor=shift,
    )


def dynamic(**more: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, "use_dynamic_shifting": True, **more})


def whole(pipeline: str, **parts: Any) -> Any:
    """The pipeline of that class, ready to evaluate, its small weights large enough to matter."""
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
            for values in part.parameters():
                if not values.isfinite().all() or values.abs().max() == 0 or values.abs().max() > 1e3:
                    torch.nn.init.normal_(values, std=0.1)  # left empty, or zero at the start of a training
    return getattr(diffusers, pipeline)(**parts)


def lumina2() -> Any:
    network = diffusers.Lumina2Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 64, 64),
        cap_feat_dim=8,
    )
    text = language_model("Gemma2", 8, sliding_window=16)
    # Lumina2Pipeline takes every codec for one of 8 pixels a latent.
    return whole(
        "Lumina2Pipeline", transformer=network, scheduler=dynamic(), vae=codec(4), text_encoder=text, tokenizer=tokenizer()
    )


def qwen_image() -> Any:
    network = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 1.0, 2.0],
    )
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        "rope_theta": 1e6,
        "pad_token_id": 0,
    }
    encoder = transformers.Qwen2_5_VLForConditionalGeneration(
        # without the id, which the published model's file has, versions before 4.57 fail
        transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, vision_start_token_id=151652)
    )
    return whole(
        "QwenImagePipeline",
        transformer=network,
        scheduler=dynamic(shift_terminal=0.02),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer(96),
    )


def z_image() -> Any:
    network = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    text = language_model("Qwen3", 16)
    return whole(
        "ZImagePipeline",
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=codec(),
        text_encoder=text,
        tokenizer=tokenizer(),
    )


def sana() -> Any:
    network = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=32,
    )
    # SanaPipeline works with 32 pixels a latent only.
    blocks = {
        "block_types": (*("ResBlock",) * 5, "EfficientViTBlock"),
        "block_out_channels": (8,) * 6,
        "layers_per_block": (1,) * 6,
        "qkv_multiscales": (*((),) * 5, (5,)),
    }
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in blocks.items()},
    )
    text = language_model("Gemma2", 8, sliding_window=16)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return whole("SanaPipeline", transformer=network, scheduler=scheduler, vae=vae, text_encoder=text, tokenizer=tokenizer())


def aura_flow() -> Any:
    network = diffusers.AuraFlowTransformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=16,
        out_channels=4,
        pos_embed_max_size=256,
    )
    for block in (*network.joint_transformer_blocks, *network.single_transformer_blocks):
        block.norm1.linear.weight.data *= 8.0  # it sets what attention counts for: next to nothing as it starts
    config = transformers.UMT5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return whole(
        "AuraFlowPipeline",
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=codec(shift=None),
        text_encoder=transformers.UMT5EncoderModel(config),
        tokenizer=tokenizer(),
    )


def chroma() -> Any:
    network = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    config = transformers.T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return whole(
        "ChromaPipeline",
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=codec(),
        text_encoder=transformers.T5EncoderModel(config),
        tokenizer=tokenizer(),
    )


def cogview4() -> Any:
    network = diffusers.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=4,
        sample_size=8,
    )
    shifting = {"base_shift": 0.25, "max_shift": 0.75, "time_shift_type": "linear"}
    return whole(
        "CogView4Pipeline",
        transformer=network,
        scheduler=dynamic(**shifting),
        vae=codec(4, shift=None),
        text_encoder=language_model("Glm", 16),
        tokenizer=tokenizer(),
    )


def flux2_klein() -> Any:
    network = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    vae.bn.running_mean.uniform_(-0.5, 0.5)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return whole(
        "Flux2KleinPipeline",
        transformer=network,
        scheduler=dynamic(),
        vae=vae,
        text_encoder=language_model("Qwen3", 16, layers=28),
        tokenizer=tokenizer(),
    )


BUILDERS = {
    "lumina2": lumina2,
    "qwen_image": qwen_image,
    "z_image": z_image,
    "sana": sana,
    "aura_flow": aura_flow,
    "chroma": chroma,
    "cogview4": cogview4,
    "flux2_klein": flux2_klein,
}


SINCE = {"z_image": "0.39", "flux2_klein": "0.37"}
"""The versions of diffusers from which on these pipelines can be driven: before, Z-Image's ends with a step of no length, and
there is no other."""


@pytest.fixture(scope="session")
def kinds() -> Callable[[str], Any]:
    """A new toy pipeline of that kind, always with the same weights. Skips the test if diffusers is too old for it."""

    def build(name: str) -> Any:
        pytest.importorskip("diffusers", SINCE.get(name))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            pipeline = BUILDERS[name]()
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return build


@pytest.fixture(scope="session")
def kind_folder(kinds: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where `save_pretrained` wrote that pipeline; tests copy it before they change anything."""

    @cache
    def save(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "tiny"
        kinds(name).save_pretrained(folder)
        return folder

    return save
