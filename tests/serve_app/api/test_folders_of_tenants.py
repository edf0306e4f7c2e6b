"""LoRA folders of tenants: what lies in one's own is found first, and what lies in another's is not there."""

import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.client import body, pair
from tests.fixtures.api import Api, ServeApi
from tests.serve_app.loras.files import full, save

MINE, OTHER = {"X-Tenant": "mine"}, {"X-Tenant": "other"}
OWN = "own.safetensors"


@pytest_asyncio.fixture
async def shared(serve_api: ServeApi) -> AsyncIterator[Api]:
    """Yield the API for tenants, of whom one has a file of its own."""
    async with serve_api(trust_tenant_header=True) as api:
        save(folder(api, "mine") / OWN, full(rank=3))
        yield api


def folder(api: Api, tenant: str) -> Path:
    found = api.lora_root / "tenants" / tenant
    found.mkdir(parents=True, exist_ok=True)
    return found


def asking(path: str) -> dict[str, Any]:
    return body(loras=[{"path": path, "transformer": "high"}])


async def post(api: Api, path: str, headers: Mapping[str, str]) -> httpx.Response:
    return await api.http.post("/v1/inference", json=asking(path), headers=headers)


@pytest.mark.parametrize("path", [OWN, f"tenants/mine/{OWN}", pair()[0]["path"]])
async def test_a_tenant_uses_its_own_files_and_the_shared_ones(shared: Api, path: str) -> None:
    assert (await post(shared, path, MINE)).status_code == 200


@pytest.mark.parametrize("path", [OWN, f"tenants/mine/{OWN}", "tenants/mine", "tenants", f"Tenants/mine/{OWN}"])
async def test_anothers_file_is_answered_as_one_that_is_not_there(shared: Api, path: str) -> None:
    foreign = await post(shared, path, OTHER)
    absent = await post(shared, path.replace("own", "absent"), OTHER)
    assert foreign.status_code == 400
    assert foreign.json()["detail"]["error"]["code"] == "LORA_NOT_FOUND"
    assert foreign.text.replace("own.", "absent.") == absent.text


async def test_a_link_into_anothers_folder_leads_nowhere(shared: Api) -> None:
    (shared.lora_root / "link.safetensors").symlink_to(folder(shared, "mine") / OWN)
    assert (await post(shared, "link.safetensors", MINE)).status_code == 200
    assert (await post(shared, "link.safetensors", OTHER)).json()["detail"]["error"]["code"] == "LORA_NOT_FOUND"


async def test_ones_own_file_goes_before_a_shared_one_of_the_same_name(shared: Api) -> None:
    shared_name = pair()[0]["path"]
    own = folder(shared, "mine") / shared_name
    own.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder(shared, "mine") / OWN, own)
    answers = [await post(shared, shared_name, headers) for headers in (MINE, OTHER)]
    ids = [answer.raise_for_status().json()["request_id"] for answer in answers]
    locations = [(await shared.store.requests.get(each)).renders[0].spec.loras[0].location for each in ids]
    assert locations == [str(own), str(shared.lora_root / shared_name)]


async def test_the_list_and_an_inspection_show_what_one_may_use(shared: Api) -> None:
    async def listed(headers: Mapping[str, str]) -> set[str]:
        files = (await shared.http.get("/v1/loras", headers=headers)).json()["files"]
        return {file["path"] for file in files}

    assert await listed(MINE) - await listed(OTHER) == {OWN}
    question = {"loras": [{"path": OWN}]}
    mine = (await shared.http.post("/v1/loras/inspect", json=question, headers=MINE)).json()
    other = (await shared.http.post("/v1/loras/inspect", json=question, headers=OTHER)).json()
    assert mine["files"][0]["report"] is not None
    assert other["files"][0]["error"]["code"] == "LORA_NOT_FOUND"


@pytest.mark.parametrize("tenant", [".", ".."])
async def test_no_tenant_is_named_like_the_folder_of_all(shared: Api, tenant: str) -> None:
    refused = await post(shared, f"mine/{OWN}", {"X-Tenant": tenant})
    assert refused.json()["detail"]["error"]["code"] == "HEADER_INVALID"
