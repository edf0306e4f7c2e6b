"""Control images that are named by an address: fetched once, behind the SSRF guard, with documented errors."""

import hashlib
from typing import Any

import pytest

from serve_app.spec import Fit, InputImage
from tests.fixtures.images import ServeImages, request
from tests.fixtures.web_server import File, WebServer, redirect, web_server
from tests.serve_app.images.files import file

PNG = file("PNG")
PINNED = InputImage(sha256=hashlib.sha256(PNG).hexdigest(), fit=Fit.STRETCH)


def files(server: WebServer) -> dict[str, Any]:
    return {"image_private_hosts": [server.host], "image_timeout_s": 5}


async def test_an_image_from_the_web_is_fetched_once_and_follows_redirects(serve_images: ServeImages) -> None:
    with web_server() as server:
        server.pages["/fox.png"] = File(PNG)
        server.pages["/moved"] = redirect("/fox.png")
        async with serve_images(**files(server)) as api:
            specs = await api.specs(request(*[{"ctrl_img": f"{server.url}/moved?signature=secret"}] * 3))
            assert {spec.image for spec in specs} == {PINNED}
            assert server.count("/fox.png") == 1


@pytest.mark.parametrize(
    ("page", "code", "status"),
    [
        (File(PNG, extra={"Content_Length": str(1 << 40)}), "CONTROL_IMAGE_INVALID", 400),
        (File(b"<html>sign in</html>"), "CONTROL_IMAGE_INVALID", 400),
        (redirect("http://169.254.169.254/latest/meta-data/"), "CONTROL_IMAGE_REFUSED", 400),
        (redirect("file:///etc/passwd"), "CONTROL_IMAGE_REFUSED", 400),
        (redirect("/image"), "CONTROL_IMAGE_REFUSED", 400),
        (lambda exchange, _: exchange.answer(404), "CONTROL_IMAGE_NOT_FOUND", 400),
        (lambda exchange, _: exchange.answer(403), "CONTROL_IMAGE_REFUSED", 400),
        (lambda exchange, _: exchange.answer(418), "CONTROL_IMAGE_REFUSED", 400),
        (lambda exchange, _: exchange.answer(500), "IMAGE_SOURCE_UNAVAILABLE", 503),
        (lambda exchange, _: exchange.answer(200, PNG, Content_Length="9" * 5000), "IMAGE_SOURCE_UNAVAILABLE", 503),
        (File(PNG, breaks=[10] * 9), "IMAGE_SOURCE_UNAVAILABLE", 503),
        (File(PNG, breaks=[10], stalls=True), "IMAGE_SOURCE_UNAVAILABLE", 503),
    ],
)
async def test_what_a_web_server_answers_is_a_documented_error(
    serve_images: ServeImages, page: Any, code: str, status: int
) -> None:
    with web_server() as server:
        server.pages["/image"] = page
        async with serve_images(**files(server) | {"image_timeout_s": 1.5}) as api:
            answer = await api.post(request({"ctrl_img": f"{server.url}/image?signature=secret"}))
            server.pages.clear()
        error = answer.json()["detail"]["error"]
        assert (answer.status_code, error["code"]) == (status, code), error
        assert "secret" not in answer.text
        assert error["details"] == {"prompt_index": 0, "field": "ctrl_img"}


async def test_an_image_is_not_read_beyond_the_limit(serve_images: ServeImages) -> None:
    with web_server() as server:
        server.pages["/endless"] = lambda exchange, _: _endless(exchange)
        async with serve_images(**files(server), image_max_mib=0.1) as api:
            error = await api.refused(request({"ctrl_img": f"{server.url}/endless"}), "CONTROL_IMAGE_INVALID")
            assert "more than the 104857 bytes" in error["message"]


def _endless(exchange: Any) -> None:
    exchange.start(200)
    for _ in range(1000):
        exchange.body(bytes(1 << 16))


async def test_hosts_are_those_of_the_args(serve_images: ServeImages) -> None:
    async with serve_images(image_hosts=["*.example.com"]) as api:
        for address in ("https://example.org/fox.png", "s3://other/fox.png", "hf://org/repository/fox.png"):
            error = await api.refused(request({"ctrl_img": address}), "CONTROL_IMAGE_REFUSED")
            assert "image_hosts" in error["message"]
    async with serve_images(image_allow_http=False) as api:
        error = await api.refused(request({"ctrl_img": "http://example.com/fox.png"}), "CONTROL_IMAGE_REFUSED")
        assert "use https://" in error["message"]


async def test_the_hub_gets_the_token_and_no_other_server_does(serve_images: ServeImages) -> None:
    with web_server() as server, web_server() as elsewhere:
        elsewhere.pages["/fox.png"] = File(PNG)
        page = redirect(f"{elsewhere.url}/fox.png")
        server.pages["/org/repository/resolve/main/a/fox.png"] = page
        server.pages["/datasets/org/repository/resolve/v1/fox.png"] = page
        args = {"image_private_hosts": [server.host, elsewhere.host], "hub_endpoint": server.url}
        async with serve_images(**args) as api:
            references = [
                "hf://org/repository/a/fox.png",
                "hf://datasets/org/repository/fox.png@v1",
                f"{server.url}/org/repository/blob/main/a/fox.png",
            ]
            body = request(*({"ctrl_img": reference} for reference in references), hf_token="hf_mine")
            assert {spec.image for spec in await api.specs(body)} == {PINNED}
        assert [asked.headers.get("authorization") for asked in server.requests] == ["Bearer hf_mine"] * 3
        assert [asked.headers.get("authorization") for asked in elsewhere.requests] == [None] * 3
