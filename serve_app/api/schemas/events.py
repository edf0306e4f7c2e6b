"""Schemas of the events of a request: the JSON in `data:` of each server-sent event, by its name in `event:`.

`status` and `done` carry a RequestStatus, `output` a Video; `step` and `preview` what stands here.
"""

from typing import Literal

from pydantic import BaseModel, Field

EventName = Literal["status", "step", "preview", "output", "done"]


class SentEvent(BaseModel):
    """One server-sent event, field by field."""

    event: EventName = Field(description="What `data` is.")
    data: str = Field(description="A JSON document.", json_schema_extra={"contentMediaType": "application/json"})
    id: str = Field(description="For the header Last-Event-ID, to go on behind this event.")
    retry: int | None = Field(None, description="Of the first one: milliseconds, after which a browser connects again.")


class Step(BaseModel):
    """How far one video is."""

    index: int = Field(description="Index of the prompt in the request.", examples=[0])
    step: int = Field(description="Denoising steps done.", examples=[10])
    steps: int = Field(description="Of so many.", examples=[25])
    progress: float = Field(ge=0, le=1, description="Of the whole request.", examples=[0.4])
    eta_seconds: float | None = Field(description="Predicted seconds until the request's last render ends.")


class Preview(BaseModel):
    """What the latents of one video show after a step."""

    index: int = Field(description="Index of the prompt in the request.", examples=[0])
    step: int = Field(description="Denoising steps done.", examples=[10])
    image: str = Field(description="Small animated WebP, as a data URL.", examples=["data:image/webp;base64,UklGRg=="])
