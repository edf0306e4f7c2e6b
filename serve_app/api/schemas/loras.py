"""Schemas of `GET /v1/loras` and `PUT /v1/loras/{path}`: the LoRA files that requests may name by their path."""

from typing import Literal

from pydantic import BaseModel, Field

_MODELS = Field(description="Ids of served models that it looks made for; `POST /v1/loras/inspect` tells for sure.")


class LoraFile(BaseModel):
    """One file under the server's `lora_root`."""

    path: str = Field(description="As requests name it.", examples=["my_job/my_000000500_high_noise.safetensors"])
    name: str = Field(description="What the training was called, else the file's name.", examples=["my"])
    size: int = Field(description="Bytes.", examples=[306815264])
    modified_at: str = Field(description="RFC 3339, UTC.", examples=["2026-01-17T00:00:00.000Z"])
    side: Literal["high", "low", "both"] | None = Field(
        description="The expert that its keys, its name or its folder speak of; null where nothing tells."
    )
    rank: int | None = Field(description="Of its first layer.", examples=[32])
    step: int | None = Field(description="Training steps done when it was saved, by its metadata.", examples=[500])
    trained_with: str | None = Field(description="Version of AI Toolkit, by its metadata.", examples=["0.9.5"])
    base_model: str | None = Field(description="The model that it was trained on, by its metadata.")
    models: list[str] = _MODELS
    problem: str | None = Field(
        description="Why no served model can use it, as far as its header shows at a glance; null where nothing shows.",
        examples=["4096 bytes at its end are missing; download or copy it again"],
    )


class LoraPair(BaseModel):
    """What may stand together in a request: two halves of one name, one half alone, or a file that holds both."""

    name: str = Field(description="The path without side and step.", examples=["my_job/my"])
    step: int | None = Field(description="By metadata or name.", examples=[500])
    models: list[str] = _MODELS
    high: LoraFile | None = Field(description="For `transformer: high`; null where there is no such half.")
    low: LoraFile | None = Field(description="For `transformer: low`; the same file as `high` where it holds both.")


class Loras(BaseModel):
    """The LoRA files of this server."""

    pairs: list[LoraPair] = Field(description="By name and step.")
    files: list[LoraFile] = Field(description="All files, those in pairs, too, by path.")
    complete: bool = Field(description="False where there are more than 10,000 files; the others are not listed.")
    uploads_allowed: bool = Field(description="Whether `PUT /v1/loras/{path}` takes files (arg `uploads`).")
