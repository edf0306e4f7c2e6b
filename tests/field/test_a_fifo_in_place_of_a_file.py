"""A FIFO, a socket, a device, a folder or a link where a file was: nothing waits at it, and the answer names it."""

import asyncio
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from deployments.attempt import Attempt, AttemptAborted
from deployments.lora_reading import finished, released
from serve_app.errors import ConfigurationInvalid, LoraChanged, LoraNotFetched
from serve_app.files import NotRegular, open_regular, read_regular
from serve_app.jobs.records import Claim
from serve_app.jobs.schema import migrate
from serve_app.loras.cache import locks
from serve_app.loras.cache.disk import CacheDirectory
from serve_app.loras.files import LoraFiles
from serve_app.models.card import load_card
from serve_app.models.checkpoints.folder import check_base
from serve_app.observers import End
from tests.client import body
from tests.deployments.conftest import Bench, until
from tests.fixtures.api import Api
from tests.fixtures.specs import make_spec

SHA256 = "a" * 64
CLAIM = Claim(render_id=1, request_id="r", index=0, attempt=1, token="t", spec=make_spec())


def a_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has at most a hundred characters
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def a_link_to_a_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def a_link_to_a_fifo(path: Path) -> None:
    a_fifo(path.with_name("fifo"))
    path.unlink(missing_ok=True)
    path.symlink_to("fifo")


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def a_link_to_a_copy(path: Path) -> None:
    shutil.move(path, path.with_name("copy"))
    path.symlink_to("copy")


def a_link_to_itself(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def a_file_of_a_terabyte(path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse; to hash it would take half an hour


NO_FILES = [a_fifo, a_socket, a_link_to_a_device, a_link_to_a_fifo, a_folder]
Swap = Callable[[Path], None]


@pytest.mark.parametrize("swap", [*NO_FILES, a_link_to_a_copy, a_link_to_itself, a_file_of_a_terabyte])
async def test_a_lora_that_is_swapped_after_it_was_accepted_fails_its_render_at_once(bench: Bench, swap: Swap) -> None:
    replica = bench.replica()
    spec = bench.spec("mine")
    path = Path(spec.loras[0].location)
    sized = tuple(lora.model_copy(update={"size": os.stat(lora.location).st_size}) for lora in spec.loras)  # noqa: PTH116
    swap(path)
    claim = await bench.claim(spec.model_copy(update={"loras": sized}))
    await asyncio.wait_for(replica.generator.render(claim), 20)
    await until(lambda: bool(replica.heard.outcomes))
    assert replica.heard.outcomes[0].end is End.FAILED
    assert (await bench.render(claim)).error_code == "LORA_CHANGED"


@pytest.mark.parametrize("swap", [a_fifo, a_socket, a_link_to_a_device, a_folder])
def test_a_lora_that_is_swapped_between_its_check_and_its_reading_is_noticed(bench: Bench, swap: Swap) -> None:
    lora = bench.spec("mine").loras[0]
    files: LoraFiles = bench.replica().generator._loras
    with files.hold(lora, strict=True, token=None) as on_disk:
        with on_disk.opened() as held:
            shutil.move(on_disk.path, on_disk.path.with_name("aside"))
            swap(on_disk.path)
            assert Path(held).read_bytes() == on_disk.path.with_name("aside").read_bytes()
        with pytest.raises(LoraChanged), on_disk.opened():
            pass


@pytest.mark.parametrize("swap", NO_FILES)
async def test_a_request_that_names_no_file_is_refused_at_once(api: Api, swap: Swap) -> None:
    request = body()
    swap(api.lora_root / request["loras"][0]["path"])
    error = await asyncio.wait_for(api.refused(request, "LORA_PATH_REFUSED"), 20)
    assert error["details"]["path"] == request["loras"][0]["path"]


@pytest.mark.parametrize("swap", NO_FILES)
async def test_nothing_waits_at_an_adapter_config_that_is_no_file(api: Api, swap: Swap) -> None:
    request = body()
    swap((api.lora_root / request["loras"][0]["path"]).with_name("adapter_config.json"))
    answer = await asyncio.wait_for(api.post(request), 20)
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize("swap", NO_FILES)
def test_the_cache_takes_what_is_no_file_for_missing(tmp_path: Path, swap: Swap) -> None:
    cache = CacheDirectory(tmp_path)
    swap(cache.blob(SHA256))
    if swap is not a_folder:
        assert locks.opened(cache.blob(SHA256)) is None
    swap(tmp_path / "refs" / SHA256)
    assert cache.sha256_of(SHA256) is None
    swap(cache.partial(SHA256))
    with pytest.raises(OSError):
        locks.created(cache.partial(SHA256))


@pytest.mark.parametrize("swap", NO_FILES)
def test_a_start_does_not_wait_at_what_is_no_file(tmp_path: Path, swap: Swap) -> None:
    card, checkpoint, database = tmp_path / "card.yaml", tmp_path / "checkpoint", tmp_path / "jobs.db"
    swap(card)
    with pytest.raises(ConfigurationInvalid):
        load_card(str(card))
    checkpoint.mkdir()
    swap(checkpoint / "model_index.json")
    with pytest.raises(ConfigurationInvalid, match=r"model_index\.json"):
        check_base("base_model", checkpoint, load_card("wan22_14b_t2v"))
    swap(database)
    with pytest.raises(OSError, match="no regular file"):
        migrate(f"sqlite:///{database}")


@pytest.mark.parametrize("swap", [*NO_FILES, a_link_to_itself])
def test_only_a_regular_file_is_opened_for_reading(tmp_path: Path, swap: Swap) -> None:
    path = tmp_path / "file"
    swap(path)
    for read in (open_regular, lambda path: read_regular(path, limit=10)):
        with pytest.raises(OSError):
            read(path)
    with pytest.raises(NotRegular, match="no regular file"):
        open_regular(path, follow_links=False)


def test_links_are_followed_only_where_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", limit=10) == b"content"
    with pytest.raises(NotRegular, match="a link"):
        open_regular(tmp_path / "link", follow_links=False)
    with pytest.raises(OSError, match="larger than 3 bytes"):
        read_regular(tmp_path / "file", limit=3)


async def test_a_disk_that_never_answers_ends_a_render_and_a_cancel_does_not_wait_for_it(tmp_path: Path) -> None:
    """A thread that opens a FIFO waits as one does whose network disk is away."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for stop, error in ((False, LoraNotFetched), (True, AttemptAborted)):
        closed: list[bool] = []
        held = ExitStack()
        held.callback(closed.append, True)
        attempt = Attempt(CLAIM, timeout_s=60)
        holding = asyncio.create_task(asyncio.to_thread(fifo.read_bytes))
        await asyncio.sleep(0.1)
        if stop:
            attempt.stop()
        with pytest.raises(error):
            await finished(holding, attempt, 60 if stop else 0.1)
        await released(holding, held)
        assert closed == []
        descriptor = await asyncio.to_thread(os.open, fifo, os.O_WRONLY)
        os.close(descriptor)
        await until(lambda closed=closed: closed == [True])
