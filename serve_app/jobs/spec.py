"""What one render is: every value the runtime needs, resolved and effective, as it is kept in the job store."""

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Expert(StrEnum):
    """The two denoising experts of Wan 2.2 A14B, in the words of the HTTP API."""

    HIGH = "high"  # `transformer`: timesteps at or above the boundary
    LOW = "low"  # `transformer_2`: timesteps below it


class Recipe(StrEnum):
    """Whose frames a render must equal."""

    REFERENCE = "reference"  # the reference server's


class OutputFormat(StrEnum):
    """Container of the finished video; the value is also the file extension, but for PNG, which is a ZIP."""

    MP4 = "mp4"
    WEBP = "webp"
    PNG = "png"

    @property
    def extension(self) -> str:
        """File name extension without the dot."""
        return "zip" if self is OutputFormat.PNG else self.value

    @property
    def media_type(self) -> str:
        """Content type under which the file is served."""
        return {"mp4": "video/mp4", "webp": "image/webp", "png": "application/zip"}[self.value]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraFile(_Frozen):
    """One side of a LoRA pair, pinned to the content it had when the request was accepted."""

    expert: Expert
    reference: str  # as the client wrote it
    file: Path  # absolute, inside lora_root
    sha256: str  # of the whole file
    multiplier: float


class RenderSpec(_Frozen):
    """One prompt of a request with nothing left to decide: two runs of one spec give the same frames.

    Sizes are pixels, already snapped to the model's divisor; `num_frames` is the count that is generated.
    """

    recipe: Recipe
    loras: tuple[LoraFile, ...]
    prompt: str  # trigger word in place
    negative_prompt: str
    width: int
    height: int
    num_frames: int
    fps: int
    sample_steps: int
    guidance_scale: float
    seed: int
    output_format: OutputFormat

    def lora_for(self, expert: Expert) -> LoraFile | None:
        """The LoRA of that expert, or None where the expert runs as the base model."""
        return next((lora for lora in self.loras if lora.expert is expert), None)

    @property
    def pair_key(self) -> str:
        """Routing key of this render's LoRA pair; see `pair_key`."""
        return pair_key(self.loras)


def pair_key(loras: Iterable[LoraFile]) -> str:
    """Hash of the files' content and sides (16 hex digits), in any order of `loras`.

    Multipliers are not in it, because changing a scale needs no reload; names are not in it, because a file that
    was overwritten in place is another pair and a copy under another name is the same one.
    """
    parts = sorted(f"{lora.expert.value}:{lora.sha256}" for lora in loras)
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
