"""Image folders of tenants: what lies in one's own is found first, and what lies in another's is not there."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.fixtures.api import Api
from tests.fixtures.images import ServeImages, request
from tests.serve_app.images.files import file

MINE, OTHER = {"X-Tenant": "mine"}, {"X-Tenant": "other"}
PNG, BMP = file("PNG"), file("BMP")


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    """Hold an image for all, and one of a tenant with the same name, an image of its own, and a link to that."""
    root = tmp_path / "images"
    own = root / "tenants" / "mine"
    own.mkdir(parents=True)
    (root / "fox.png").write_bytes(PNG)
    (own / "fox.png").write_bytes(BMP)
    (own / "own.png").write_bytes(BMP)
    (root / "link.png").symlink_to("tenants/mine/own.png")
    return root


@pytest_asyncio.fixture
async def api(serve_images: ServeImages, image_root: Path) -> AsyncIterator[Api]:
    """Yield the API for tenants, of whom one has images of its own."""
    async with serve_images(image_root=image_root, trust_tenant_header=True) as served:
        yield served


async def post(api: Api, path: str, headers: Mapping[str, str]) -> httpx.Response:
    return await api.http.post("/v1/inference", json=request({"ctrl_img": path}), headers=headers)


@pytest.mark.parametrize("path", ["own.png", "tenants/mine/own.png", "link.png"])
async def test_anothers_image_is_answered_as_one_that_is_not_there(api: Api, path: str) -> None:
    assert (await post(api, path, MINE)).status_code == 200
    foreign = await post(api, path, OTHER)
    absent = await post(api, "absent.png", OTHER)
    assert foreign.json()["detail"]["error"]["code"] == "CONTROL_IMAGE_NOT_FOUND"
    assert (foreign.status_code, foreign.json()) == (absent.status_code, absent.json())


async def test_ones_own_image_goes_before_a_shared_one_of_the_same_name(api: Api) -> None:
    answers = [await post(api, "fox.png", headers) for headers in (MINE, OTHER)]
    ids = [answer.raise_for_status().json()["request_id"] for answer in answers]
    mine, others = [(await api.store.requests.get(each)).renders[0].spec.image for each in ids]
    assert mine is not None
    assert others is not None
    assert mine.sha256 != others.sha256
