"""Answers for operators: probes, and what every Generator of the cluster is doing."""

from typing import Literal

from pydantic import BaseModel, Field

from serve_app.api.schemas.errors import ErrorBody
from serve_app.results import Kernels, StartSeconds


class Alive(BaseModel):
    """This process answers."""

    status: Literal["alive"] = Field("alive", examples=["alive"])


class Ready(BaseModel):
    """Whether what is accepted now is rendered without anyone's help."""

    status: Literal["ready", "not_ready"] = Field(examples=["ready"])
    problem: ErrorBody | None = Field(None, description="Why not; what is accepted waits.")


class RunningRender(BaseModel):
    """A render that a Generator works on."""

    request_id: str = Field(description="Id of its request.")
    index: int = Field(description="Of the prompt in the request.")
    attempt: int = Field(description="From 1.")
    steps_done: int = Field(description="As of the last heartbeat.")
    steps: int = Field(description="Denoising steps in all.")


class GeneratorState(BaseModel):
    """One Generator, as the Dispatcher knows it."""

    replica: str = Field(description="Ray Serve's id of the replica; empty renders run on one that is gone.")
    device: str | None = Field(None, description='Product name of the GPU, or "cpu".')
    dtype: str | None = Field(None, description="Compute dtype.")
    offload: str | None = Field(None, description="Memory plan.")
    pristine: str | None = Field(None, description="Where weights that merged LoRAs change are kept as they were.")
    start: StartSeconds | None = Field(None, description="Seconds of each part of its start.")
    kernels: Kernels | None = Field(None, description="What the speed profiles but `exact` have there.")
    pairs: list[str] = Field(description="Keys of the LoRA pairs that are ready there, the loaded one first.")
    renders: list[RunningRender] = Field(description="What it works on: one, and another while that is encoded.")


class ModelCluster(BaseModel):
    """The Generators of one model."""

    model: str = Field(description="Id of the model.")
    dispatcher: Literal["alive", "unknown"] = Field(description="Whether its Dispatcher answered.")
    queued: int | None = Field(description="Renders that wait; null while the job store does not answer.")
    generators: list[GeneratorState] = Field(description="Those that the Dispatcher knows or that hold a render.")


class Cluster(BaseModel):
    """What the cluster is doing now."""

    models: list[ModelCluster] = Field(description="One for each model.")
