"""The codec of the scenes world: a fixed linear map between 8x8 patches and 64 numbers, with diffusers' interface of a VAE."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional

PATCH = 8


class PatchLatents:
    """What `PatchCodec.encode` finds. The codec is not random, so `mode`, `mean` and `sample` are one and the same."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def mode(self) -> Tensor:
        """The latents (B, C, H/4, W/4)."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The latents again; `generator` is taken because diffusers gives one, and not used."""
        return self.mean


class PatchCodec(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers has no types
    """Principal components of 8x8 RGB patches, each divided by the square root of its spread.

    `encode` takes pictures (B, 3, H, W) in [-1, 1], sides a multiple of 8, and gives latents (B, C, H/4, W/4) of
    C = `latent_channels`; FLUX's 2x2 packing of these is exactly the 4 C components of each patch. `decode` goes back; what
    lies outside these components is lost. Latents are centred (`shift_factor` 0) and `scaling_factor` brings their overall
    spread to one.

    Raises:
        ValueError: `encode` got a picture whose sides are no multiple of 8.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 18,
        block_out_channels: tuple[int, ...] = (64, 64, 64),  # three of them: diffusers reads "4 pixels a latent"
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
    ) -> None:
        super().__init__()
        # Parameters and not buffers: every loading path of diffusers fills parameters, some skip buffers.
        self.mean = nn.Parameter(torch.zeros(3 * PATCH * PATCH), requires_grad=False)
        self.basis = nn.Parameter(torch.eye(4 * latent_channels, 3 * PATCH * PATCH), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(4 * latent_channels), requires_grad=False)

    def latents(self, x: Tensor) -> Tensor:
        """Latents (B, C, H/4, W/4) of pictures (B, 3, H, W) in [-1, 1]; ValueError unless 8 divides both sides."""
        if x.shape[-1] % PATCH or x.shape[-2] % PATCH:
            raise ValueError(f"the sides of a picture must be multiples of {PATCH}; got {x.shape[-1]}x{x.shape[-2]}")
        centred = functional.pixel_unshuffle(x, PATCH) - self.mean[:, None, None]  # (B, 192, H/8, W/8)
        coefficients = torch.einsum("kp,bphw->bkhw", self.basis, centred)  # (B, 4 C, H/8, W/8)
        return functional.pixel_shuffle(coefficients / self.spread.sqrt()[:, None, None], 2)

    def pictures(self, z: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) of latents (B, C, H/4, W/4); values can pass [-1, 1] slightly and are not cut."""
        coefficients = functional.pixel_unshuffle(z, 2) * self.spread.sqrt()[:, None, None]  # (B, 4 C, H/8, W/8)
        patches = torch.einsum("kp,bkhw->bphw", self.basis, coefficients) + self.mean[:, None, None]
        return functional.pixel_shuffle(patches, PATCH)

    @apply_forward_hook  # type: ignore[untyped-decorator]  # an offloaded codec comes to the device first
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[PatchLatents]:
        """`latents` as diffusers asks for them: `encode(x).latent_dist.mode()`."""
        found = PatchLatents(self.latents(x))
        return AutoencoderKLOutput(latent_dist=found) if return_dict else (found,)

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """`pictures` as diffusers asks for them: `decode(z).sample`; the generator is not used."""
        pictures = self.pictures(z)
        return DecoderOutput(sample=pictures) if return_dict else (pictures,)

    def forward(self, sample: Tensor) -> Tensor:
        """The round trip of pictures (B, 3, H, W) in [-1, 1]."""
        return self.pictures(self.latents(sample))


def fit_codec(pictures: Tensor, components: int) -> PatchCodec:
    """The codec of pictures (B, 3, H, W) in [-1, 1]: their patches' mean and strongest components, in float64.

    Raises:
        ValueError: `components` is not a multiple of 4 from 4 to 192.
    """
    if components % 4 or not 4 <= components <= 3 * PATCH * PATCH:
        raise ValueError(f"the codec needs a multiple of 4 components, 4 to {3 * PATCH * PATCH}; got {components}")
    patches = functional.pixel_unshuffle(pictures, PATCH).double().permute(0, 2, 3, 1).reshape(-1, 3 * PATCH * PATCH)
    mean = patches.mean(dim=0)
    covariance = (patches - mean).T @ (patches - mean) / len(patches)
    variance, vectors = torch.linalg.eigh(covariance)  # rising
    strongest = variance.argsort(descending=True)[:components]
    basis = vectors[:, strongest].T
    # An eigenvector's sign is arbitrary; make its largest entry positive so that every machine finds the same codec.
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    spread = variance[strongest].sqrt()
    overall = spread.mean().sqrt()  # after the scaling, component k has variance spread[k]
    codec: PatchCodec = PatchCodec(latent_channels=components // 4, scaling_factor=round(1.0 / float(overall), 6))
    codec.mean.data = mean.float()
    codec.basis.data = (basis * largest.sign()).float()
    codec.spread.data = spread.float()
    return codec
