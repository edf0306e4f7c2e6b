"""DELETE where a file cannot be removed: 503 that says so, and the request stays until it can."""

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.client import body
from tests.fixtures.api import Api, on_both_databases

pytestmark = on_both_databases


def a_folder_for_the_file(video: Path) -> Callable[[], None]:
    video.rename(video.with_name("aside"))
    (video / "full").mkdir(parents=True)
    return lambda: shutil.rmtree(video)


def a_file_for_the_folder(video: Path) -> Callable[[], None]:
    aside = video.parents[2] / "aside"
    video.parent.rename(aside)
    video.parent.touch()

    def put_back() -> None:
        video.parent.unlink()
        aside.rename(video.parent)

    return put_back


def a_link_for_the_folder(video: Path) -> Callable[[], None]:
    aside = video.parents[2] / "aside"
    video.parent.rename(aside)
    video.parent.symlink_to(aside)

    def put_back() -> None:
        assert (aside / video.name).exists()  # nothing was deleted through the link
        video.parent.unlink()
        aside.rename(video.parent)

    return put_back


def no_root(video: Path) -> Callable[[], None]:
    root = video.parents[1]
    aside = root.with_name("unmounted")
    root.rename(aside)

    def put_back() -> None:
        aside.rename(root)

    return put_back


@pytest.mark.parametrize("obstacle", [a_folder_for_the_file, a_file_for_the_folder, a_link_for_the_folder, no_root])
async def test_the_request_stays_until_its_files_can_go(
    api: Api, obstacle: Callable[[Path], Callable[[], None]]
) -> None:
    request_id = await api.submit(body())
    await api.finish(await api.claim())
    before = await api.result(request_id)
    video = Path(before["outputs"]["videos"][0]["file_path"])
    put_back = obstacle(video)
    for _ in range(2):
        answer = await api.http.delete(f"/v1/requests/{request_id}")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        error = answer.json()["detail"]["error"]
        assert error["code"] == "OUTPUT_STORAGE_UNAVAILABLE"
        assert int(answer.headers["Retry-After"]) > 0
        assert await api.result(request_id) == before
    put_back()
    assert (await api.http.delete(f"/v1/requests/{request_id}")).status_code == httpx.codes.OK
    assert (await api.http.get(f"/v1/requests/{request_id}/status")).status_code == httpx.codes.NOT_FOUND
    assert not video.parent.exists() or obstacle is a_folder_for_the_file  # which left a file of its own behind
