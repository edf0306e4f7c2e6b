"""The web page as it is served; what it does in a browser is in tests/browser."""

import gzip
import re
from pathlib import Path

import pytest

from tests.fixtures.api import Api, ServeApi

A_FILE = r'(?:href|src)="(page/[^"]+)"'
ROOT = Path(__file__).parents[3]
PAGE = ROOT / "serve_app" / "page"
LARGEST = 200_000  # bytes of everything that the page loads at first


async def files(api: Api) -> list[str]:
    """Return the paths that the document names."""
    return re.findall(A_FILE, (await api.http.get("/")).text)


async def test_the_document_names_files_that_are_there(api: Api) -> None:
    named = await files(api)
    assert [name.rpartition("/")[2] for name in named] == ["icon.svg", "style.css", "app.js"]
    types = [(await api.http.get(f"/{name}")).headers["Content-Type"] for name in named]
    assert types == ["image/svg+xml", "text/css; charset=utf-8", "text/javascript; charset=utf-8"]


async def test_every_module_that_is_imported_is_there_and_all_are_small(api: Api) -> None:
    found: dict[str, str] = {}
    waiting = [f"/{name}" for name in await files(api)]
    while waiting:
        path = waiting.pop()
        answer = await api.http.get(path)
        assert answer.status_code == 200, path
        found[path] = answer.text
        folder = path.rpartition("/")[0]
        imported = [f"{folder}/{name}" for name in re.findall(r'(?:from|import) "\./([^"]+)"', answer.text)]
        waiting += [name for name in imported if name not in found and name not in waiting]
    assert len(found) > 10
    assert sum(len(text.encode()) for text in found.values()) + len((await api.http.get("/")).content) < LARGEST


async def test_the_document_is_checked_each_time_and_its_files_are_kept_for_good(api: Api) -> None:
    document, style = await api.http.get("/"), await api.http.get(f"/{(await files(api))[1]}")
    assert document.headers["Cache-Control"] == "no-cache"
    assert "immutable" in style.headers["Cache-Control"]
    for answer in (document, style):
        again = await api.http.get(answer.request.url.path, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_files_are_compressed_for_those_who_read_that(api: Api) -> None:
    path = f"/{(await files(api))[1]}"
    compressed = await api.http.get(path, headers={"Accept-Encoding": "gzip, br"})
    plain = await api.http.get(path, headers={"Accept-Encoding": "identity"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert int(compressed.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 3
    assert compressed.content == plain.content  # once it is read
    assert compressed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "..%2ferrors.py"])
async def test_nothing_else_is_served(name: str, api: Api) -> None:
    folder = (await files(api))[0].rpartition("/")[0]
    for place in (folder, "page/0123456789abcdef"):
        answer = await api.http.get(f"/{place}/{name}")
        assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (404, "PATH_NOT_FOUND")


def test_the_docs_say_how_large_it_is() -> None:
    contents = [path.read_bytes() for path in PAGE.iterdir()]
    text = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
    said = re.search(r"has (\d+) files of (\d+) kB, (\d+) kB compressed", text)
    assert said is not None
    whole, compressed = sum(map(len, contents)), sum(len(gzip.compress(content)) for content in contents)
    assert [*map(int, said.groups())] == pytest.approx([len(contents), whole / 1000, compressed / 1000], rel=0.05)


async def test_nothing_may_be_loaded_from_elsewhere_or_run_inline(api: Api) -> None:
    answer = await api.http.get("/")
    policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["media-src"] == "'self' blob:"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", answer.text)


async def test_videos_in_a_bucket_may_be_loaded_from_there_alone(
    serve_api: ServeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://objects.example:9000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    async with serve_api(output_url="s3://videos/made") as api:
        policy = (await api.http.get("/")).headers["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["media-src"] == "'self' blob: https://objects.example:9000"
    assert rules["img-src"] == "'self' data: blob: https://objects.example:9000"
    assert [name for name, sources in rules.items() if "objects.example" in sources] == ["img-src", "media-src"]
