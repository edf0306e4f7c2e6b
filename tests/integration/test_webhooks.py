"""A webhook of a running service: the receiver hears of a render's start, output and end, in order and signed."""

import json
import time

from pydantic import SecretStr
from standardwebhooks import Webhook

from serve_app.webhooks.signing import secret_of
from tests.client import Client, body
from tests.fixtures.service import WEBHOOK_SECRET
from tests.fixtures.web_server import web_server
from tests.serve_app.webhooks.receiver import Receiver

WITHIN_S = 30


def test_a_receiver_hears_of_a_render_from_start_to_end(client: Client) -> None:
    with web_server() as server:
        receiver = server.pages["/hook"] = Receiver()
        events = ["started", "output", "ended"]
        request_id = client.submit(body({"seed": 7}, webhook_url=f"{server.url}/hook", webhook_events=events))
        end = time.monotonic() + WITHIN_S
        while len(receiver.messages) < len(events):
            assert time.monotonic() < end, receiver.types
            time.sleep(0.1)
    verifier = Webhook(secret_of("default", SecretStr(WEBHOOK_SECRET)).get_secret_value())
    heard = [verifier.verify(content, headers) for headers, content in receiver.messages]
    assert heard == [json.loads(content) for _, content in receiver.messages]
    assert [message["type"] for message in heard] == ["request.started", "request.output", "request.ended"]
    assert heard[-1]["data"]["request_id"] == request_id
    assert heard[-1]["data"]["status"] == "succeeded"
