"""Records as rows of the job store's tables, and back."""

from typing import Any

from sqlalchemy import RowMapping

from serve_app.jobs.records import NewRequest, Output, RenderRecord
from serve_app.jobs.states import RenderState
from serve_app.spec import RenderSpec


def of_request(request: NewRequest) -> dict[str, Any]:
    """Its row in `requests`."""
    return {
        "id": request.id,
        "model": request.model,
        "created_at": request.created_at,
        "tenant": request.tenant,
        "priority": request.priority.rank,
        "idempotency_key": request.idempotency.key if request.idempotency else None,
        "body_digest": request.idempotency.digest if request.idempotency else None,
    }


def of_renders(request: NewRequest) -> list[dict[str, Any]]:
    """Its rows in `renders`, one for each prompt."""
    return [
        {
            "request_id": request.id,
            "index": index,
            "state": RenderState.QUEUED,
            "pair_key": spec.pair_key,
            "spec": spec.model_dump_json(),
            "created_at": request.created_at,
            "tenant": request.tenant,
            "priority": request.priority.rank,
            "cost_s": cost_s,
            "steps": spec.sample_steps,
        }
        for index, (spec, cost_s) in enumerate(zip(request.specs, request.costs, strict=True))
    ]


def of_tokens(request: NewRequest) -> list[dict[str, Any]]:
    """Its row in `request_tokens`, if it brought a token that is still needed."""
    if request.hf_token is None:
        return []
    return [{"request_id": request.id, "hf_token": request.hf_token.get_secret_value()}]


def to_render(row: RowMapping) -> RenderRecord:
    """The record of a row of `renders`."""
    return RenderRecord(
        id=row["id"],
        index=row["index"],
        state=RenderState(row["state"]),
        spec=RenderSpec.model_validate_json(row["spec"]),
        cost_s=row["cost_s"],
        steps_done=row["steps_done"],
        attempt=row["attempt"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        output=None if row["output"] is None else Output.model_validate_json(row["output"]),
        error_code=row["error_code"],
        error_message=row["error_message"],
    )
