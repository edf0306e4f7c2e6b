"""Neither a token nor the query of a URL shows up anywhere."""

import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from serve_app.errors import ServiceError
from serve_app.loras.sources import LoraSources, SourcePolicy
from tests.fixtures.web_server import Exchange, File, Page, WebServer, html, redirect
from tests.serve_app.loras.sources.conftest import MakeSources, Pin
from tests.serve_app.loras.sources.servers import HUB_TOKEN, HubStandIn, lora_bytes

FILE = lora_bytes()
SIGNATURE = "SIGNATUREOFTHEURL"
PASSWORD = "PASSWORDOFTHEURL"  # noqa: S105
SECRETS = (HUB_TOKEN, SIGNATURE, PASSWORD, "X-Signature")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that nothing secret is logged, at any level, whatever a test does."""
    caplog.set_level(logging.DEBUG)
    yield
    assert not leaked(caplog.text)


def leaked(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def report(call: Callable[[], object]) -> str:
    with pytest.raises(ServiceError) as caught:
        call()
    return "".join(traceback.format_exception(caught.value)) + str(caught.value.body())


def answer(status: int) -> Page:
    def page(exchange: Exchange, _count: int) -> None:
        exchange.answer(status, f"{SIGNATURE} {exchange.headers.get('Authorization')}".encode())

    return page


@pytest.mark.parametrize(
    "page",
    [*map(answer, (400, 401, 403, 404, 500)), html, redirect(f"https://a:{PASSWORD}@b/?{SIGNATURE}"),
     redirect(f"http://127.0.0.1:1/?{SIGNATURE}"), redirect(f"/a?{SIGNATURE}"), File(FILE[:50], etag=None)],
)  # fmt: skip
def test_errors_of_the_web_hold_no_query(make: MakeSources, server: WebServer, page: Page) -> None:
    server.pages["/a"] = page
    sources = make(private_hosts=(server.host,), allow_http=True, attempts=1)
    assert not leaked(report(lambda: sources.locate(f"{server.url}/a?signature={SIGNATURE}", token=HUB_TOKEN)))
    assert not [request for request in server.requests if "authorization" in request.headers]


@pytest.mark.parametrize(
    "reference",
    [
        f"https://user:{PASSWORD}@example.com/a?{SIGNATURE}#{SIGNATURE}",
        f"ftp://user:{PASSWORD}@host/a?{SIGNATURE}",
        f"https://[::1?{SIGNATURE}",
        f"data:{SIGNATURE}",
        f"s3://user:{PASSWORD}@bucket/a?{SIGNATURE}",
        f"hf://me/pair/a?{SIGNATURE}@a@b",
    ],
)
def test_refused_references_are_shown_without_credentials(make: MakeSources, reference: str) -> None:
    assert not leaked(report(lambda: make().locate(reference, token=HUB_TOKEN)))


def test_what_is_shown_of_a_file_holds_no_query(sources: LoraSources, server: WebServer, pin: Pin) -> None:
    server.pages["/a.safetensors"] = File(FILE)
    located = sources.locate(f"{server.url}/a.safetensors?signature={SIGNATURE}")
    assert located.reference == f"{server.url}/a.safetensors?..."
    assert located.file_name == "a.safetensors"
    with sources.fetch(pin(located)) as file:
        assert file.path.read_bytes() == FILE
    del server.pages["/a.safetensors"]
    lora = pin(located).model_copy(update={"content": f"etag-{'0' * 64}", "reference": located.location})

    def fetch() -> None:
        with sources.fetch(lora, HUB_TOKEN):
            pass

    assert not leaked(report(fetch))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_errors_of_the_hub_hold_no_token(make: MakeSources, hub: HubStandIn, status: int) -> None:
    sources = make(hub_endpoint=hub.server.url, attempts=1)
    hub.server.pages["/me/pair/resolve/main/high_noise.safetensors"] = answer(status)
    hub.server.pages["/api/models/me/pair"] = answer(status)
    for reference in ("hf://me/pair", "hf://me/pair/high_noise.safetensors"):
        assert not leaked(report(partial(sources.locate, reference, token=HUB_TOKEN)))


def test_a_token_is_kept_nowhere(hub_sources: LoraSources, hub: HubStandIn, pin: Pin, cache_dir: Path) -> None:
    replace(hub, gated=True).publish()
    located = hub_sources.locate("hf://me/pair", token=HUB_TOKEN)
    hub_sources.header(located, HUB_TOKEN)
    with hub_sources.fetch(pin(located), HUB_TOKEN) as file:
        assert not leaked(f"{located} {file} {pin(located)} {vars(hub_sources)}")
    kept = [path.read_bytes() for path in cache_dir.rglob("*") if path.is_file()]
    assert kept
    assert not any(HUB_TOKEN.encode() in content for content in kept)


def test_the_services_token_is_not_shown_with_its_policy() -> None:
    assert not leaked(repr(SourcePolicy(hub_token=HUB_TOKEN)))
