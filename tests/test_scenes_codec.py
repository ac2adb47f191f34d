"""The codec: how much it keeps, that it is a projection, and that diffusers can use it as FLUX's VAE."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from fe.scenes.codec import PatchCodec, fit_codec
from fe.scenes.data import draw_batch
from fe.scenes.evaluate import codec_psnr, split_pictures
from fe.scenes.network import build_codec, pack
from fe.scenes.render import render_indices

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return build_codec(pictures=1000)


def test_components_are_orthonormal_and_sorted(codec: PatchCodec) -> None:
    torch.testing.assert_close(codec.basis @ codec.basis.T, torch.eye(72), rtol=0.0, atol=1e-5)
    assert (codec.spread.diff() <= 0).all()
    assert codec.spread[-1] > 0


def test_decode_then_encode_is_exact_and_the_round_trip_a_projection(codec: PatchCodec) -> None:
    latents = torch.randn(2, 18, 16, 16, generator=torch.Generator().manual_seed(0))
    again = codec.encode(codec.decode(latents).sample).latent_dist.mode()  # type: ignore[union-attr]
    torch.testing.assert_close(again, latents, rtol=0.0, atol=1e-4)
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    once = codec(pictures)
    torch.testing.assert_close(codec(once), once, rtol=0.0, atol=1e-5)


def test_fresh_pictures_come_back_with_30_db_or_more(codec: PatchCodec) -> None:
    pictures, _ = split_pictures(300)
    psnr = codec_psnr(codec, pictures)
    assert psnr.mean() >= 30.0
    assert psnr.min() >= 25.0


def test_scaled_latents_have_unit_spread(codec: PatchCodec) -> None:
    pictures = render_indices(*draw_batch(300, seed=3)) * 2.0 - 1.0
    found = codec.encode(pictures).latent_dist.mode()  # type: ignore[union-attr]
    latents = (found - codec.config.shift_factor) * codec.config.scaling_factor
    assert latents.shape == (300, 18, 16, 16)
    assert abs(float(latents.std()) - 1.0) < 0.05


def test_packing_gives_the_components_of_each_patch(codec: PatchCodec) -> None:
    pictures = render_indices(*draw_batch(2, seed=3)) * 2.0 - 1.0
    latents = codec.encode(pictures).latent_dist.mode()  # type: ignore[union-attr]
    tokens = FluxPipeline._pack_latents(latents, 2, 18, 16, 16)  # (2, 64, 72)
    assert torch.equal(tokens, pack(latents))
    patch = torch.nn.functional.pixel_unshuffle(pictures[:, :, 8:16, 24:32], 8)[:, :, 0, 0]  # second row, fourth column
    expected = (patch - codec.mean) @ codec.basis.T / codec.spread.sqrt()
    torch.testing.assert_close(tokens[:, 8 + 3], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("components", [0, 66, 196])
def test_components_that_cannot_be_packed_are_refused(components: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 4 components, 4 to 192; got {components}"):
        fit_codec(torch.zeros(1, 3, 64, 64), components)


def test_more_components_keep_more() -> None:
    pictures, _ = split_pictures(100)
    found = [codec_psnr(build_codec(count, pictures=1000), pictures).mean() for count in (64, 72, 128)]
    assert found[0] < found[1] < 40.0 < found[2]


def test_other_sizes_and_diffusers_calls(codec: PatchCodec) -> None:
    picture = torch.zeros(1, 3, 128, 72)
    (found,) = codec.encode(picture, return_dict=False)
    assert found.sample(torch.Generator()).shape == (1, 18, 32, 18)
    assert codec.decode(found.mode(), return_dict=False)[0].shape == picture.shape
    with pytest.raises(ValueError, match="multiples of 8; got 60x64"):
        codec.encode(torch.zeros(1, 3, 64, 60))


def test_saving_and_loading_keeps_every_number(codec: PatchCodec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    loaded = PatchCodec.from_pretrained(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in codec.state_dict().items())
    assert loaded.config.scaling_factor == codec.config.scaling_factor
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
