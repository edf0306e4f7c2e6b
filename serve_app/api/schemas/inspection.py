"""Schemas of `POST /v1/loras/inspect`."""

from pydantic import BaseModel, Field

from serve_app.api.schemas.bodies import Body, LoraItem, Side, Token
from serve_app.api.schemas.errors import ErrorBody
from serve_app.api.schemas.scalars import Flag
from serve_app.loras.report import FileReport
from serve_app.models import limits


class InspectionRequest(Body):
    """Body of `POST /v1/loras/inspect`."""

    loras: list[LoraItem] = Field(
        min_length=1,
        max_length=limits.LORAS,
        description="The files, written as in a request for videos; `network_multiplier` plays no part.",
    )
    model: str | None = Field(
        None,
        max_length=limits.NAME_LENGTH,
        description="The model that the files are for; when omitted, each file is tried with every served model.",
    )
    hf_token: Token | None = Field(None, description="For private or gated Hugging Face repositories; not kept.")
    norms: Flag = Field(
        False,
        description="Also how strongly each layer is changed. Reads the values, of files in `lora_root` only; without "
        "it, NaN in them is not seen here, and refused when a request uses the file.",
    )


class InspectedFile(BaseModel):
    """One file: a report on it, or why it cannot be used."""

    path: str = Field(description="As it was sent, without secrets.")
    transformer: Side | None = Field(description="As it was sent.")
    models: list[str] = Field(description="Served models that could use the file; the report is on the first.")
    report: FileReport | None = Field(None, description="What the file holds; null where it cannot be used.")
    error: ErrorBody | None = Field(None, description="Why the file cannot be used.")


class Inspection(BaseModel):
    """Reports in the order of the request."""

    files: list[InspectedFile] = Field(description="One for each item of `loras`.")
    warnings: list[str] = Field(description="What looks like a mistake about the files together.")
