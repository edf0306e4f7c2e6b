"""`GET /v1/loras`: the files that requests may name by a path, and the pairs among them."""

import json
import os
import shutil
from pathlib import Path, PurePosixPath

import pytest

from serve_app.loras import catalog
from tests.client import body, pair
from tests.fixtures.api import Api
from tests.serve_app.loras.files import METADATA, full, save

TRAINED = {
    "format": "pt",
    "software": json.dumps({"name": "ai-toolkit", "version": "0.9.5"}),
    "training_info": json.dumps({"step": 500, "epoch": 4}),
    "ss_base_model_version": "wan22_14b",
    "name": "hero",
}


async def test_a_pair_is_listed_with_what_its_headers_say(api: Api) -> None:
    for number, side in enumerate(("high", "low")):
        (api.lora_root / "job").mkdir(exist_ok=True)
        save(api.lora_root / "job" / f"hero_000000500_{side}_noise.safetensors", full(rank=number + 3), TRAINED)
    listed = await api.get("/v1/loras")
    demo, hero = listed["pairs"]
    assert (demo["name"], demo["step"]) == ("demo/wan22_demo", 500)
    assert (hero["name"], hero["step"], hero["models"]) == ("job/hero", 500, ["wan22_14b_t2v"])
    high, low = hero["high"], hero["low"]
    assert (high["side"], low["side"], high["rank"], low["rank"]) == ("high", "low", 3, 4)
    assert (high["trained_with"], high["step"], high["base_model"], high["name"]) == ("0.9.5", 500, "wan22_14b", "hero")
    assert high["size"] == (api.lora_root / high["path"]).stat().st_size
    assert high["modified_at"].endswith("Z")
    assert [file["path"] for file in listed["files"]] == sorted(
        [*(side["path"] for side in pair()), high["path"], low["path"]]
    )
    assert (listed["complete"], listed["uploads_allowed"]) == (True, False)
    for listed_pair in listed["pairs"]:  # a picker needs nothing else
        sides = [{"path": listed_pair[side]["path"], "transformer": side} for side in ("high", "low")]
        await api.submit(body(loras=sides))


async def test_a_file_of_both_experts_is_a_pair_of_its_own(api: Api) -> None:
    both = {
        key.replace("diffusion_model", expert): value
        for expert in ("transformer", "transformer_2")
        for key, value in full().items()
    }
    save(api.lora_root / "both.safetensors", both, METADATA)
    (found,) = [each for each in (await api.get("/v1/loras"))["pairs"] if each["name"] == "both"]
    assert found["high"] == found["low"]
    assert found["high"]["side"] == "both"


async def test_what_is_no_lora_of_a_served_model_is_listed_without_a_model(api: Api) -> None:
    (api.lora_root / "text.safetensors").write_text("not a safetensors file")
    (api.lora_root / "notes.txt").write_text("no LoRA")
    save(api.lora_root / "other.safetensors", {"text_model.layer.lora_A.weight": full(2).popitem()[1]})
    files = {file["path"]: file for file in (await api.get("/v1/loras"))["files"]}
    assert [files[name]["models"] for name in ("text.safetensors", "other.safetensors")] == [[], []]
    assert "notes.txt" not in files


async def test_nothing_outside_the_root_and_nothing_hidden_is_listed(api: Api, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    save(outside / "secret.safetensors", full())
    (api.lora_root / "linked").symlink_to(outside)
    (api.lora_root / "linked.safetensors").symlink_to(outside / "secret.safetensors")
    (api.lora_root / "loop").symlink_to(api.lora_root)
    (api.lora_root / "inside_high_noise.safetensors").symlink_to(api.lora_root / pair()[0]["path"])
    save(api.lora_root / ".partial.safetensors", full())
    os.mkfifo(api.lora_root / "fifo.safetensors")
    paths = [file["path"] for file in (await api.get("/v1/loras"))["files"]]
    assert paths == [*sorted(side["path"] for side in pair()), "inside_high_noise.safetensors"]


async def test_a_file_that_changes_is_looked_at_again(api: Api) -> None:
    path = api.lora_root / pair()[0]["path"]
    before = {file["path"]: file["rank"] for file in (await api.get("/v1/loras"))["files"]}
    save(path, full(rank=7))
    after = {file["path"]: file["rank"] for file in (await api.get("/v1/loras"))["files"]}
    assert (before[pair()[0]["path"]], after[pair()[0]["path"]]) == (1, 7)


@pytest.mark.slow
async def test_two_thousand_files_are_read_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    source = api.lora_root / pair()[0]["path"]
    for number in range(2000):
        copy = api.lora_root / f"many_{number}_high_noise.safetensors"
        shutil.copyfile(source, copy)
    monkeypatch.setattr(catalog, "_AT_REST_S", 0.0)
    assert len((await api.get("/v1/loras"))["files"]) == 2002
    monkeypatch.setattr(catalog, "glance", None)  # so that another look would fail
    assert len((await api.get("/v1/loras"))["files"]) == 2002


async def test_more_files_than_are_listed_are_told(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "MOST_FILES", 1)
    listed = await api.get("/v1/loras")
    assert (len(listed["files"]), listed["complete"]) == (1, False)


async def test_a_root_that_is_away_is_said(api: Api) -> None:
    shutil.rmtree(api.lora_root)
    answer = await api.http.get("/v1/loras")
    assert answer.status_code == 503
    assert answer.json()["detail"]["error"]["code"] == "LORA_STORAGE_UNAVAILABLE"
    assert str(api.lora_root) not in answer.text


async def test_with_a_folder_of_its_own_a_sender_sees_it_and_what_is_shared(api: Api) -> None:
    view = catalog.View(api.lora_root, PurePosixPath("tenants/me"))
    for owner in ("me", "other"):
        (api.lora_root / "tenants" / owner).mkdir(parents=True)
        save(api.lora_root / "tenants" / owner / f"{owner}_high_noise.safetensors", full())
    found = await api.app.state.lora_catalog.listing(view)
    assert sorted(found.files) == sorted(["me_high_noise.safetensors", *(side["path"] for side in pair())])


async def test_what_cannot_be_used_says_why(api: Api) -> None:
    whole = (api.lora_root / pair()[0]["path"]).read_bytes()
    lone = {key: value for key, value in full().items() if not key.endswith("ffn.2.lora_B.weight")}
    bare = {key.removesuffix(".weight"): value for key, value in full().items()}
    save(api.lora_root / "whole_high_noise.safetensors", full())
    save(api.lora_root / "bare_high_noise.safetensors", bare)
    save(api.lora_root / "lone_high_noise.safetensors", lone)
    save(api.lora_root / "lone_low_noise.safetensors", full())
    save(api.lora_root / "other.safetensors", {"text_model.layer.diff": full(2).popitem()[1]})
    for name, content in {"cut": whole[:-100], "in_header": whole[:100], "page": b"<html>", "empty": b""}.items():
        (api.lora_root / f"{name}.safetensors").write_bytes(content)
    listed = await api.get("/v1/loras")
    said = {file["path"].removesuffix(".safetensors"): file["problem"] for file in listed["files"]}
    assert [said[f"{name}_high_noise"] for name in ("whole", "bare")] == [None, None]
    assert said["lone_high_noise"].startswith("the other half of diffusion_model.blocks.")
    assert said["cut"].startswith("100 bytes at its end are missing")
    assert "ends within its header" in said["in_header"]
    assert ("web page" in said["page"], "empty" in said["empty"]) == (True, True)
    assert said["other"] == "no served model has a place for its tensors"
    models = {file["path"]: file["models"] for file in listed["files"] if file["problem"]}
    assert set(map(len, models.values())) == {0}
    (broken,) = [each for each in listed["pairs"] if each["name"] == "lone"]
    assert (broken["models"], broken["low"]["problem"]) == ([], None)
    assert said["lone_high_noise"] == broken["high"]["problem"]
