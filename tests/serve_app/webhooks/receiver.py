"""A receiver of webhooks, a page of the tests' web server."""

import json
from dataclasses import dataclass, field

from tests.fixtures.web_server import Exchange


@dataclass
class Receiver:
    """What it was sent, and how it answers: the first of `answers` for each message, then 204."""

    answers: list[int] = field(default_factory=list)
    hangs: bool = False
    messages: list[tuple[dict[str, str], str]] = field(default_factory=list)

    def __call__(self, exchange: Exchange, _count: int) -> None:
        body = exchange.rfile.read(int(exchange.headers["Content-Length"])).decode()
        self.messages.append(({name.lower(): value for name, value in exchange.headers.items()}, body))
        if self.hangs:
            exchange.wait()
        exchange.answer(self.answers.pop(0) if self.answers else 204, Location="/elsewhere")

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.messages]
