"""A LoRA file whose header is a bomb: refused by its length before it is read, or at a bounded cost; once a request."""

import json
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from serve_app.errors import LoraInvalid
from serve_app.loras.formats import parse, parse_header, read_header
from serve_app.loras.formats.bounds import DEFAULT_HEADER_BYTES, MOST_TENSORS
from serve_app.loras.formats.header import SafetensorsHeader, read_header_of
from serve_app.models.card import load_card
from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.web_server import File, web_server
from tests.serve_app.loras.files import full, save
from tests.serve_app.loras.sources.servers import HubStandIn

ROOM = DEFAULT_HEADER_BYTES - 100
KEY = "diffusion_model.blocks.{}.self_attn.q.lora_A.weight"
ARCHITECTURE = load_card("wan22_14b_t2v").architecture
REFUSED_IN_S = 10  # on a busy machine; 84 MB of header took 22 s, and 1.6 GB
TOO_LONG = "its header has "
TOO_MANY = "far more tensors or metadata than a LoRA"


def file_of(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def empty_tensors(count: int, key: str = KEY) -> bytes:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return json.dumps({key.format(number): entry for number in range(count)}, separators=(",", ":")).encode()


# Made by the test that wants one: they are megabytes.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "many tensors": (lambda: empty_tensors(150_000), TOO_LONG),
    "spaces": (lambda: b"{" + b" " * DEFAULT_HEADER_BYTES + b"}", TOO_LONG),
    "one name": (lambda: b'{"' + b"a" * DEFAULT_HEADER_BYTES + b'":1}', TOO_LONG),
    "tensors within the length": (lambda: empty_tensors(60_000), TOO_MANY),
    "one tensor too many": (lambda: empty_tensors(MOST_TENSORS + 2), TOO_MANY),
    "escaped names": (lambda: empty_tensors(40_000).replace(b"data_offsets", b"data\\u005foffsets"), TOO_MANY),
    "metadata": (lambda: json.dumps({"__metadata__": {str(n): "" for n in range(400_000)}}).encode(), TOO_MANY),
    "numbers": (lambda: b'{"a":{"dtype":"F32","data_offsets":[0,4],"shape":[' + b"1," * 4_000_000 + b"1]}}", TOO_MANY),
    "lists": (lambda: b'{"a":[' + b"[]," * 2_700_000 + b"[]]}", TOO_MANY),
    "objects": (lambda: b'{"a":[' + b"{}," * 2_700_000 + b"{}]}", TOO_MANY),
    "nesting": (lambda: b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deeply"),
    "nested wide": (lambda: b"[" * (ROOM // 2) + b"]" * (ROOM // 2), "no JSON object"),
    "quotes": (lambda: b'{"' + b'\\"' * (ROOM // 2) + b'":1}', "does not consist of"),
    "backslashes": (lambda: b'{"' + b"\\\\" * (ROOM // 2) + b'":1}', "does not consist of"),
    "long numbers": (lambda: b'{"a":[' + b",".join([b"1" * 4200] * 1900) + b"]}", "does not consist of"),
    "a number without end": (lambda: b'{"a":0.' + b"1" * ROOM + b"}", "does not consist of"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_costs_little(bomb: str) -> None:
    header, why = BOMBS[bomb]
    content = file_of(header())
    started = time.process_time()
    with pytest.raises(LoraInvalid) as caught:
        parse_header(content, len(content), "bomb")
    assert why in caught.value.message
    assert len(str(caught.value.body())) < 5000
    assert time.process_time() - started < REFUSED_IN_S


@pytest.mark.parametrize(
    "key", [KEY, "x{}" + ".diffusion_model" * 10, "lora_unet__" * 10 + "blocks_{}_ffn_0.lora_up.weight"]
)
def test_the_largest_header_that_is_parsed_costs_little(key: str) -> None:
    content = file_of(empty_tensors(MOST_TENSORS, key))
    started = time.process_time()
    with pytest.raises(LoraInvalid):
        parse(parse_header(content, len(content), "bomb"), ARCHITECTURE, "bomb")
    assert time.process_time() - started < REFUSED_IN_S


def test_a_parse_leaves_other_threads_their_turn() -> None:
    """An event loop beside it would be late by the longest pause."""
    content = file_of(empty_tensors(MOST_TENSORS))
    pauses: list[float] = []

    def work() -> None:
        with pytest.raises(LoraInvalid):
            parse(parse_header(content, len(content), "bomb"), ARCHITECTURE, "bomb")

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        before = time.monotonic()
        time.sleep(0.001)
        pauses.append(time.monotonic() - before)
    assert sorted(pauses)[len(pauses) // 2] < 0.3  # a parse takes twice as long, and there are four


@pytest.mark.parametrize(
    "metadata", [{"ss_tag_frequency": "x" * 5_000_000}, {f"ss_{number}": "{}" for number in range(5000)}]
)
def test_a_good_file_with_much_metadata_is_read(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = save(tmp_path / "x", full(), {"format": "pt", **metadata})
    assert read_header(path, "x").metadata.keys() >= metadata.keys()


def with_path(path: str) -> dict[str, Any]:
    sent = body()
    for item in sent["loras"]:
        item["path"] = path
    return sent


async def test_from_disk(api: Api) -> None:
    (api.lora_root / "bomb.safetensors").write_bytes(file_of(BOMBS["many tensors"][0]()))
    error = await api.refused(with_path("bomb.safetensors"), "LORA_INVALID")
    assert TOO_LONG in error["message"]
    inspected = await api.http.post("/v1/loras/inspect", json={"loras": [{"path": "bomb.safetensors"}]})
    assert inspected.json()["files"][0]["error"]["code"] == "LORA_INVALID"


async def test_the_limit_is_an_arg(serve_api: ServeApi) -> None:
    async with serve_api(lora_header_max_mib=0.001) as api:
        error = await api.refused(body(), "LORA_INVALID")
        assert "at most 1048" in error["message"]


@pytest.mark.parametrize("etag", ['"1"', None])
async def test_from_the_web_it_is_not_downloaded(serve_api: ServeApi, etag: str | None) -> None:
    with web_server() as server:
        bomb = File(file_of(BOMBS["many tensors"][0]()), etag=etag)
        server.pages["/bomb.safetensors"] = bomb
        async with serve_api(lora_private_hosts=(server.host,), lora_allow_http=True) as api:
            error = await api.refused(with_path(f"{server.url}/bomb.safetensors"), "LORA_INVALID")
        assert TOO_LONG in error["message"]
        assert server.ranges("/bomb.safetensors") == ["bytes=0-262143"]


async def test_from_the_hub_it_is_not_downloaded(serve_api: ServeApi) -> None:
    with web_server() as server, web_server() as cdn:
        hub = HubStandIn(server, cdn, {"high_noise.safetensors": file_of(BOMBS["many tensors"][0]())})
        hub.publish()
        allowed = {"lora_private_hosts": (cdn.host,), "lora_allow_http": True}
        async with serve_api(hub_endpoint=server.url, **allowed) as api:
            error = await api.refused(with_path("hf://me/pair/high_noise.safetensors"), "LORA_INVALID")
        assert TOO_LONG in error["message"]
        assert [request.headers["range"] for request in cdn.requests if request.method == "GET"] == ["bytes=0-262143"]


@pytest.mark.parametrize("sides", [("high",), ("high", "low"), ("low", None, "high")])
async def test_a_path_that_is_named_often_is_looked_up_once(serve_api: ServeApi, sides: tuple[str | None, ...]) -> None:
    with web_server() as server:
        server.pages["/a.safetensors"] = File(file_of(BOMBS["tensors within the length"][0]()))
        path = f"{server.url}/a.safetensors"
        items = [{"path": path, "transformer": sides[number % len(sides)]} for number in range(16)]
        async with serve_api(lora_private_hosts=(server.host,), lora_allow_http=True, max_loras_per_side=4) as api:
            found = await api.http.post("/v1/loras/inspect", json={"loras": items})
            assert [file["error"]["code"] for file in found.json()["files"]] == ["LORA_INVALID"] * 16
            looks = len(server.requests)
            assert looks <= 2  # for the first bytes, and for the rest of the header
            sent = body()
            sent["loras"] = items[:8]
            assert (await api.post(sent)).status_code == 400
            assert len(server.requests) <= 2 * looks


async def test_a_local_path_that_is_named_often_is_read_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def counted(stream: BufferedReader, name: str, most_bytes: int) -> SafetensorsHeader:
        reads.append(name)
        return read_header_of(stream, name, most_bytes)

    monkeypatch.setattr("serve_app.loras.inspection.read_header_of", counted)
    items = [{"path": body()["loras"][0]["path"], "transformer": "high"}] * 16
    found = await api.http.post("/v1/loras/inspect", json={"loras": items})
    assert len(found.json()["files"]) == 16
    assert len(reads) == 1
