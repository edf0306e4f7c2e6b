"""What `POST /v1/loras/inspect` tells of files."""

from typing import Any

import httpx

from tests.client import pair
from tests.fixtures.api import Api, Json
from tests.loras.layouts import write
from tests.serve_app.loras.files import full, save
from tests.serve_app.loras.files import pair as halves

HIGH, LOW = pair()


async def inspect(api: Api, *loras: dict[str, Any], **more: Any) -> Json:
    answer = await api.http.post("/v1/loras/inspect", json={"loras": list(loras), **more})
    assert answer.status_code == httpx.codes.OK, answer.text
    api.must_be_untouched()
    content: Json = answer.json()
    return content


async def test_a_pair_is_described_file_by_file(api: Api) -> None:
    found = await inspect(api, HIGH, LOW)
    assert found["warnings"] == []
    for lora, file, rank in zip((HIGH, LOW), found["files"], (1, 2), strict=True):
        assert (file["path"], file["transformer"], file["error"]) == (lora["path"], lora["transformer"], None)
        report = file["report"]
        assert (report["layout"], report["likely_side"], report["combined"]) == (
            "ai-toolkit",
            file["transformer"],
            False,
        )
        assert report["parts"][0]["ranks"]["max"] == rank
        assert report["norms"] is None
        assert report["warnings"] == []


async def test_norms_are_told_on_request(api: Api) -> None:
    found = await inspect(api, HIGH, norms=True)
    assert found["files"][0]["report"]["norms"]["self_attention"]["max"] > 0


async def test_a_file_that_cannot_be_used_does_not_hide_the_others(api: Api) -> None:
    (api.lora_root / "page.safetensors").write_bytes(b"<!doctype html><html></html>")
    found = await inspect(api, {"path": "page.safetensors"}, {"path": "absent.safetensors"}, {"path": "/etc/x"}, HIGH)
    codes = [file["error"] and file["error"]["code"] for file in found["files"]]
    assert codes == ["LORA_INVALID", "LORA_NOT_FOUND", "LORA_PATH_REFUSED", None]
    assert found["files"][3]["report"] is not None


async def test_what_would_be_left_out_is_listed(api: Api) -> None:
    beyond = {key.replace("blocks.0", "blocks.7"): value for key, value in halves("blocks.0.ffn.0").items()}
    save(api.lora_root / "part.safetensors", full() | beyond)
    (file,) = (await inspect(api, {"path": "part.safetensors"}))["files"]
    assert sorted(file["report"]["left_out"]) == sorted(beyond)
    assert any("left out" in warning for warning in file["report"]["warnings"])


async def test_mixed_up_sides_and_equal_files_are_warnings(api: Api) -> None:
    found = await inspect(api, {**HIGH, "transformer": "low"}, {**LOW, "transformer": "high"})
    assert [len(file["report"]["warnings"]) for file in found["files"]] == [1, 1]
    same = await inspect(api, HIGH, {**HIGH, "transformer": "low"})
    assert any("both" in warning for warning in same["warnings"])


async def test_a_file_of_both_experts_has_two_parts(api: Api) -> None:
    file = write("combined", api.lora_root).path
    (found,) = (await inspect(api, {"path": file.name}))["files"]
    assert [part["expert"] for part in found["report"]["parts"]] == ["high", "low"]


async def test_a_malformed_body_is_refused_by_its_field(api: Api) -> None:
    answer = await api.http.post("/v1/loras/inspect", json={"loras": [], "extra": 1})
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert {tuple(problem["loc"]) for problem in answer.json()["detail"]} == {("body", "loras"), ("body", "extra")}
