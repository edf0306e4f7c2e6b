"""What a LoRA file must be before its request is accepted."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.client import body, pair
from tests.fixtures.api import Api
from tests.serve_app.loras.files import Tensors, full, raw, save
from tests.serve_app.loras.files import pair as halves

HIGH, LOW = pair()
BAD = {**LOW, "path": "bad.safetensors"}

Q = halves("blocks.0.self_attn.q")
KEY = "diffusion_model.blocks.0.self_attn.q.lora_A.weight"
FOREIGN = "diffusion_model.blocks.0.attn3.to_q.diff"
BEYOND = "diffusion_model.blocks.7.ffn.0.lora_A.weight"  # a block that the model lacks

Writer = Callable[[Path], object]


def tensors(content: Tensors) -> Writer:
    return lambda path: save(path, content)


def content(data: bytes) -> Writer:
    return lambda path: path.write_bytes(data)


def cut_short(path: Path) -> None:
    save(path, full())
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (content(b""), "empty"),
        (content(b"<!DOCTYPE html><html><body>Log in</body></html>"), "web page"),
        (content(b'{"error": "Repository not found"}'), "JSON text"),
        (content(b"PK\x03\x04" + bytes(100)), "pickle"),
        (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git-lfs pointer"),
        (content(bytes(range(256)) * 8), "safetensors"),
        (cut_short, "7 bytes at its end are missing"),
        (content(raw({"__metadata__": {}})), "no tensors"),
    ],
    ids=["empty", "html", "json", "pickle", "git-lfs", "noise", "truncated", "no tensors"],
)
async def test_a_file_that_is_no_lora_is_refused_by_name(api: Api, write: Writer, reason: str) -> None:
    write(api.lora_root / "bad.safetensors")
    error = await api.refused(body(loras=[HIGH, BAD]), "LORA_INVALID")
    assert "bad.safetensors" in error["message"]
    assert reason in error["details"]["reason"]
    assert error["details"]["file"] == "bad.safetensors"


@pytest.mark.parametrize(
    ("write", "key"),
    [
        (tensors(full() | {FOREIGN: np.zeros(24, np.float16)}), FOREIGN),
        (tensors(full() | {BEYOND: np.zeros((4, 24), np.float16)}), BEYOND),
        (tensors({KEY: Q[KEY]}), KEY.replace("lora_A", "lora_B")),
        (tensors(full() | {KEY: np.full((4, 24), np.nan, np.float16)}), KEY),
        (tensors(full() | {KEY: np.zeros((4, 25), np.float16)}), KEY),
    ],
    ids=["foreign key", "block that the model lacks", "half missing", "not finite", "wrong shape"],
)
async def test_a_file_that_would_not_be_applied_completely_is_refused_with_its_keys(
    api: Api, write: Writer, key: str
) -> None:
    write(api.lora_root / "bad.safetensors")
    error = await api.refused(body(loras=[HIGH, BAD]), "LORA_INVALID")
    assert key in error["details"]["keys"]
    assert error["details"]["keys"][0] in error["message"]


async def test_a_missing_file_is_reported_before_a_bad_one(api: Api) -> None:
    (api.lora_root / "bad.safetensors").write_bytes(b"")
    await api.refused(body(loras=[BAD, {**HIGH, "path": "absent.safetensors"}]), "LORA_NOT_FOUND")


async def test_an_accepted_file_is_pinned_to_its_content(api: Api) -> None:
    (spec,) = await api.specs(body())
    pinned = {lora.expert.value: (Path(lora.location), lora.sha256) for lora in spec.loras}
    for lora in (HIGH, LOW):
        file = (api.lora_root / lora["path"]).resolve()
        assert pinned[lora["transformer"]] == (file, hashlib.sha256(file.read_bytes()).hexdigest())


async def test_a_file_that_is_overwritten_is_another_pair(api: Api) -> None:
    (before,) = await api.specs(body())
    save(api.lora_root / HIGH["path"], full(rank=7))
    (after,) = await api.specs(body())
    assert before.pair_key != after.pair_key


async def test_a_file_that_is_repaired_is_accepted(api: Api) -> None:
    (api.lora_root / "bad.safetensors").write_bytes(b"")
    await api.refused(body(loras=[BAD]), "LORA_INVALID")
    save(api.lora_root / "bad.safetensors", full())
    await api.submit(body(loras=[BAD]))
