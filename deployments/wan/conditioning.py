"""Image conditioning (image to video): how an encoded first frame enters the latents, the experts and their timesteps.

    conditioning = condition(pipe, card, spec, image, torch.device("cpu"))
    with acting_on(experts, conditioning):
        pipe(latents=conditioning.latents, ...)  # and conditioning.after_step(latents) after each step

Two models take an image in two ways, and the card says which. Both follow the reference server (`Wan22Pipeline` and
`wan_utils` of ai-toolkit) in every dtype: noise, image, mask and encoded image have the model's dtype, not float32.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import ImageConditioning, ImageInput, ModelCard
from serve_app.spec import Recipe, RenderSpec

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Conditioning(Protocol):
    """The image of one render, as it acts on latents, experts and timesteps."""

    @property
    def latents(self) -> torch.Tensor:
        """Return the latents to start from, [1, channels, frames, height, width]."""

    def before_forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of an expert's forward pass with the image in them."""

    def after_step(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents for the next step."""


class ImageChannels:
    """I2V A14B: the experts see 20 more channels, a mask (4) and the encoded video (16), which no step changes."""

    def __init__(self, noise: torch.Tensor, encoded: torch.Tensor, mask_channels: int) -> None:
        """Take the noise, and the image followed by grey frames as the VAE encodes them, in the noise's shape."""
        self.latents = noise
        mask = torch.zeros_like(encoded[:, :1]).repeat(1, mask_channels, 1, 1, 1)
        mask[:, :, 0] = 1
        self._condition = torch.cat([mask, encoded], dim=1)

    def before_forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Append the condition to the latents' channels."""
        return inputs | {"hidden_states": torch.cat([inputs["hidden_states"], self._condition], dim=1)}

    def after_step(self, latents: torch.Tensor) -> torch.Tensor:
        """Leave the latents alone: the first frame is generated, too."""
        return latents


class KeptFirstFrame:
    """TI2V 5B: the encoded image is the first latent frame, stays it, and its tokens have timestep 0."""

    def __init__(self, noise: torch.Tensor, encoded: torch.Tensor, patch: tuple[int, int, int]) -> None:
        """Take the noise, one encoded frame, and the latents (frames, rows, columns) that are one token."""
        self._first = encoded
        self.latents = torch.cat([encoded, noise[:, :, 1:]], dim=2)
        _, rows, columns = patch
        self._mask = torch.ones_like(noise[0, 0, :, ::rows, ::columns])  # [frames, rows, columns] of tokens
        self._mask[0] = 0

    def before_forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Give each token its timestep, in the model's dtype: in bfloat16, 999 becomes 1000 as in the reference."""
        now = inputs["timestep"][0, 0]  # the pipeline gives every token the same
        tokens = (self._mask * now).flatten()
        return inputs | {"timestep": tokens.unsqueeze(0).expand_as(inputs["timestep"])}

    def after_step(self, latents: torch.Tensor) -> torch.Tensor:
        """Put the encoded image back."""
        return torch.cat([self._first.to(latents.dtype), latents[:, :, 1:]], dim=2)


@contextmanager
def acting_on(experts: Iterable[Any], conditioning: Conditioning | None) -> Iterator[None]:
    """Apply `conditioning` to every forward pass of the experts while the block runs; None changes nothing."""
    with ExitStack() as hooks:
        if conditioning is not None:
            chosen = conditioning

            def before(_expert: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
                return args, chosen.before_forward(kwargs)

            for expert in experts:
                handle = expert.register_forward_pre_hook(before, with_kwargs=True)
                hooks.callback(handle.remove)
        yield


def check_conditioning(card: ModelCard) -> None:
    """Check that the card says how an image enters a model that takes one.

    Raises:
        ConfigurationInvalid: it does not.
    """
    if card.image_input is not ImageInput.NONE and card.image_conditioning is None:
        raise ConfigurationInvalid(
            f"model: the card of {card.id} has image_input: {card.image_input.value}, so it needs image_conditioning: "
            f"{' or '.join(ImageConditioning)}"
        )


@torch.no_grad()
def condition(
    pipe: Any, card: ModelCard, spec: RenderSpec, image: npt.NDArray[np.uint8], device: torch.device
) -> Conditioning:
    """Encode `image`, [height, width, 3] at the spec's size, and draw the noise.

    The encoder gives a distribution, from which the reference samples out of torch's global generator, unseeded. Here
    the generator has the spec's seed, so that a request gives the same frames again: a generator of its own on the
    device; for previews on a CPU the noise's, as there AI Toolkit seeds the one global generator for both.
    """
    dtype = pipe.vae.dtype
    noise_source = torch.Generator("cpu").manual_seed(spec.seed)
    noise = _noise(card, spec, noise_source).to(device, dtype)
    shared = spec.recipe is Recipe.PREVIEW and device.type == "cpu"
    source = noise_source if shared else torch.Generator(device).manual_seed(spec.seed)
    video = _video(image, card, spec, dtype).to(device)
    encoded = _normalised(pipe.vae, pipe.vae.encode(video).latent_dist.sample(source))
    if card.image_conditioning is ImageConditioning.CHANNELS:
        extra = card.architecture.in_channels - 2 * card.latents.channels
        return ImageChannels(noise, encoded, mask_channels=extra)
    return KeptFirstFrame(noise, encoded, card.architecture.patch_size)


def _noise(card: ModelCard, spec: RenderSpec, generator: torch.Generator) -> torch.Tensor:
    """Draw float32 noise on the CPU, whatever the device, so that a seed means the same everywhere."""
    frames, rows, columns = card.latents.stride
    latent_frames = (spec.num_frames - 1) // frames + 1
    shape = (1, card.latents.channels, latent_frames, spec.height // rows, spec.width // columns)
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def _video(image: npt.NDArray[np.uint8], card: ModelCard, spec: RenderSpec, dtype: torch.dtype) -> torch.Tensor:
    """Return what the VAE encodes, [1, 3, frames, height, width] in -1..1: the image, and for channels grey frames."""
    # Scaled in float32 to 0..1, then cast, then moved to -1..1 in that dtype: the order decides roundings.
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255).to(dtype) * 2.0 - 1.0
    first = pixels[None, :, None]
    if card.image_conditioning is ImageConditioning.FIRST_LATENT_FRAME:
        return first
    grey = first.new_zeros(1, first.shape[1], spec.num_frames - 1, spec.height, spec.width)
    return torch.cat([first, grey], dim=2)


def _normalised(vae: Any, encoded: torch.Tensor) -> torch.Tensor:
    """Return (z - mean) x (1 / std), with the VAE's statistics rounded to the dtype of z first."""
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1).to(encoded.device, encoded.dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (encoded - mean) * (1.0 / std)
