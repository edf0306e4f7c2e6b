"""The webhook of a request: which addresses are refused at once, and the log of what it was told."""

from typing import Any

import pytest

from serve_app.errors import RequestNotFound
from serve_app.jobs.outbox import Attempt, DeliveryState
from tests.client import body
from tests.fixtures.api import UNKNOWN, Api, ServeApi

SECRET = {"webhook_secret": "a secret of the whole service"}
LOCAL = {**SECRET, "webhook_private_hosts": ["localhost"], "webhook_allow_http": True}


async def test_without_a_secret_nothing_can_be_signed(api: Api) -> None:
    error = await api.refused(body(webhook_url="https://example.com/hook"), "WEBHOOK_REFUSED")
    assert "WEBHOOK_SECRET" in error["message"]
    assert error["details"] == {"field": "webhook_url"}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/hook", "use https://"),
        ("https://127.0.0.1/hook", "not on the public internet"),
        ("https://[::1]:8000/hook", "not on the public internet"),
        ("https://169.254.169.254/latest", "not on the public internet"),
        ("https://user:password@example.com/hook", "user name or password"),
        ("example.com/hook", "https://"),
        ("https://host.invalid/hook", "unknown"),
    ],
)
async def test_an_address_that_is_not_told_is_refused_at_once(serve_api: ServeApi, url: str, why: str) -> None:
    async with serve_api(**SECRET) as api:
        error = await api.refused(body(webhook_url=url), "WEBHOOK_REFUSED")
        assert why in error["message"]
        assert "password@" not in error["message"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"webhook_events": ["ended"]}, []),
        ({"webhook_url": "https://example.com", "webhook_events": ["paused"]}, ["webhook_events", 0]),
        ({"webhook_url": "https://example.com", "webhook_events": []}, ["webhook_events"]),
        ({"webhook_url": ""}, ["webhook_url"]),
    ],
)
async def test_wrong_fields_are_named(api: Api, fields: dict[str, Any], field: list[Any]) -> None:
    (problem,) = await api.invalid(body(**fields))
    assert problem["loc"] == ["body", *field]


async def test_the_log_tells_every_attempt(serve_api: ServeApi) -> None:
    async with serve_api(**LOCAL) as api:
        url = "http://localhost:9/hook"
        request_id = await api.submit(body(webhook_url=url, webhook_events=["ended", "started"]))
        log = f"/v1/requests/{request_id}/webhooks"
        assert await api.get(log) == {"url": url, "events": ["started", "ended"], "deliveries": []}
        await api.http.post(f"/v1/requests/{request_id}/cancel")
        (due,) = await api.store.outbox.due(limit=10)
        failed = Attempt(at=10.0, status=503, error="it failed", state=DeliveryState.PENDING, next_at=20.0)
        await api.store.outbox.attempted(due, failed)
        (delivery,) = (await api.get(log))["deliveries"]
        assert delivery | {"created_at": ""} == {
            "id": due.message_id,
            "event": "ended",
            "index": None,
            "state": "pending",
            "created_at": "",
            "next_attempt_at": "1970-01-01T00:00:20.000Z",
            "attempts": [{"attempt": 1, "at": "1970-01-01T00:00:10.000Z", "status": 503, "error": "it failed"}],
        }


async def test_a_request_without_a_webhook_has_an_empty_log(api: Api) -> None:
    request_id = await api.submit(body())
    assert await api.get(f"/v1/requests/{request_id}/webhooks") == {"url": None, "events": [], "deliveries": []}
    assert (await api.http.get(f"/v1/requests/{UNKNOWN}/webhooks")).status_code == 404


async def test_the_log_is_its_tenants(serve_api: ServeApi) -> None:
    async with serve_api(trust_tenant_header=True) as api:
        request_id = await api.submit(body())
        answer = await api.http.get(f"/v1/requests/{request_id}/webhooks", headers={"X-Tenant": "other"})
        assert answer.status_code == 404
        with pytest.raises(RequestNotFound):
            await api.store.outbox.log(request_id, owner="other")
