"""Error responses: the body of every refusal, and which status codes the OpenAPI document lists where."""

from typing import Any

from pydantic import BaseModel, Field


class ErrorBody(BaseModel):
    """`code` is for programs, `message` for people, `details` names what is wrong."""

    code: str = Field(examples=["LORA_NOT_FOUND"])
    message: str = Field(examples=["LoRA file(s) not found: ['my_lora_job/my_high_noise.safetensors']"])
    details: dict[str, Any] = Field(examples=[{"missing_files": ["my_lora_job/my_high_noise.safetensors"]}])


class ErrorDetail(BaseModel):
    """One error."""

    error: ErrorBody = Field(description="What stands against the request.")


class ErrorResponse(BaseModel):
    """An error, in the reference server's shape."""

    detail: ErrorDetail = Field(description="Holds the error.")


Responses = dict[int | str, dict[str, Any]]
"""What FastAPI takes as `responses`: by status code, the keywords of an OpenAPI response."""


def refusal(status: int, description: str) -> Responses:
    """Return the documentation of one error response.

    @router.get("/v1/things/{id}", responses=refusal(404, "No such thing."))
    """
    return {status: {"model": ErrorResponse, "description": description}}


NO_SUCH_REQUEST = refusal(404, "No such request.")
WRONG_HEADER = refusal(400, "A header has a value that it cannot have.")
UNAVAILABLE = refusal(503, "The job store does not answer; Retry-After says when to try again.")
OUTPUTS_UNAVAILABLE = refusal(
    503, "The job store or the place for outputs does not answer; Retry-After says when to try again."
)
UNREADABLE_BODY = {
    **refusal(408, "The body did not arrive in time (arg `body_timeout_s`)."),
    **refusal(413, "The body is longer than the service reads (arg `max_body_bytes`)."),
    **refusal(415, "The body is not JSON in UTF-8, as it is or compressed with gzip."),
}
