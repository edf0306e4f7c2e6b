"""What is served as a video is the video that was rendered, whatever has happened to the files since."""

import hashlib
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.client import body
from tests.fixtures.api import Api

VIDEO = bytes(range(256)) * 400
SECRET = b"another file of this machine".ljust(len(VIDEO), b".")  # as long as the video


@pytest_asyncio.fixture
async def url(api: Api) -> str:
    """Return where the only video of a finished request is."""
    request_id = await api.submit(body())
    await api.finish(await api.claim(), VIDEO)
    return f"/v1/requests/{request_id}/outputs/0"


@pytest_asyncio.fixture
async def video(api: Api, url: str) -> Path:
    """Return the file of that video."""
    (path,) = [Path(video["file_path"]) for video in (await api.result(url.split("/")[3]))["outputs"]["videos"]]
    return path


def cut_short(video: Path) -> None:
    with video.open("r+b") as file:
        file.truncate(1000)


def emptied(video: Path) -> None:
    video.write_bytes(b"")


def grown(video: Path) -> None:
    with video.open("ab") as file:
        file.write(b"more")


def half_overwritten(video: Path) -> None:
    with video.open("r+b") as file:
        file.write(SECRET[: len(VIDEO) // 2])


def one_bit_flipped_and_its_time_set_back(video: Path) -> None:
    before = video.stat()
    with video.open("r+b") as file:
        file.seek(5000)
        file.write(bytes([VIDEO[5000] ^ 1]))
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_file(video: Path) -> None:
    video.unlink()
    video.write_bytes(SECRET)


def elsewhere(video: Path) -> Path:
    place = video.parents[2] / "elsewhere"
    place.mkdir()
    return place


def a_link(video: Path) -> None:
    target = elsewhere(video) / "secret"
    target.write_bytes(SECRET)
    video.unlink()
    video.symlink_to(target)


def a_link_to_a_copy(video: Path) -> None:
    target = elsewhere(video) / "copy"
    shutil.move(video, target)
    video.symlink_to(target)


def a_hard_link(video: Path) -> None:
    target = elsewhere(video) / "secret"
    target.write_bytes(SECRET)
    video.unlink()
    video.hardlink_to(target)


def a_link_to_itself(video: Path) -> None:
    video.unlink()
    video.symlink_to(video.name)


def a_linked_folder(video: Path) -> None:
    folder = elsewhere(video) / "folder"
    shutil.move(video.parent, folder)
    video.parent.symlink_to(folder, target_is_directory=True)


def a_folder(video: Path) -> None:
    video.unlink()
    video.mkdir()


def a_file_for_the_folder(video: Path) -> None:
    shutil.rmtree(video.parent)
    video.parent.write_bytes(SECRET)


def a_fifo(video: Path) -> None:
    video.unlink()
    os.mkfifo(video)


def a_link_to_a_device(video: Path) -> None:
    video.unlink()
    video.symlink_to("/dev/zero")


def a_socket(video: Path) -> None:
    video.unlink()
    here = Path.cwd()
    os.chdir(video.parent)  # the path of a socket has at most a hundred characters
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(video.name)
    finally:
        os.chdir(here)


DAMAGE = [
    *(cut_short, emptied, grown, half_overwritten, one_bit_flipped_and_its_time_set_back, another_file),
    *(a_link, a_link_to_a_copy, a_hard_link, a_link_to_itself, a_linked_folder, a_folder, a_file_for_the_folder),
    *(a_fifo, a_link_to_a_device, a_socket),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_video_that_is_no_longer_what_was_stored_is_gone(
    api: Api, url: str, video: Path, damage: Callable[[Path], None], method: str
) -> None:
    assert (await api.http.get(url)).content == VIDEO
    damage(video)
    for headers in ({}, {"Range": "bytes=0-9"}, {"If-None-Match": f'"{hashlib.sha256(VIDEO).hexdigest()}"'}):
        answer = await api.http.request(method, url, headers=headers)
        assert answer.status_code == 410, headers
        assert SECRET[:10] not in answer.content
        if method == "GET":
            error = answer.json()["detail"]["error"]
            assert error["code"] == "OUTPUT_GONE"
            assert error["details"]["reason"] in error["message"]


async def test_a_video_is_found_again_once_it_is_put_back(api: Api, url: str, video: Path) -> None:
    aside = video.with_name("aside")
    shutil.move(video, aside)
    assert (await api.http.get(url)).status_code == 404
    shutil.move(aside, video)
    assert (await api.http.get(url)).content == VIDEO


async def test_a_place_that_is_not_there_is_no_verdict_about_a_video(api: Api, url: str, video: Path) -> None:
    root = video.parents[1]
    shutil.move(root, root.with_name("unmounted"))
    answer = await api.http.get(url)
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (503, "OUTPUT_STORAGE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) > 0
    shutil.move(root.with_name("unmounted"), root)
    assert (await api.http.get(url)).content == VIDEO


async def test_the_result_says_which_bytes_the_video_has_and_the_etag_is_their_hash(api: Api, url: str) -> None:
    (made,) = (await api.result(url.split("/")[3]))["outputs"]["videos"]
    answer = await api.http.get(url)
    assert made["size"] == len(VIDEO)
    assert made["sha256"] == hashlib.sha256(VIDEO).hexdigest()
    assert answer.headers["ETag"] == f'"{made["sha256"]}"'


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("asked", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
async def test_a_video_that_the_client_has_is_not_sent_again(api: Api, url: str, asked: str, method: str) -> None:
    etag = (await api.http.get(url)).headers["ETag"]
    answer = await api.http.request(method, url, headers={"If-None-Match": asked.format(etag=etag)})
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    # A condition that holds comes before a range (RFC 9110, section 13.2.2).
    ranged = await api.http.request(
        method, url, headers={"If-None-Match": asked.format(etag=etag), "Range": "bytes=0-9"}
    )
    assert ranged.status_code == 304


async def test_a_client_with_another_video_gets_this_one(api: Api, url: str) -> None:
    for asked in ('"other"', 'W/"other", "third"', '"'):
        answer = await api.http.get(url, headers={"If-None-Match": asked})
        assert (answer.status_code, answer.content) == (200, VIDEO)


async def test_no_file_stays_open(api: Api, url: str, video: Path) -> None:
    def held() -> list[str]:
        return [link for entry in Path("/dev/fd").iterdir() if (link := _target(entry)).startswith(str(video.parent))]

    etag = (await api.http.get(url)).headers["ETag"]
    await api.http.head(url)
    for headers in ({"If-None-Match": etag}, {"Range": "bytes=1-2"}, {"Range": "bytes=999999-"}, {"Range": "x"}):
        await api.http.get(url, headers=headers)
    cut_short(video)
    await api.http.get(url)
    assert held() == []


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # the descriptor with which the folder was read
        return ""
