"""`wan-lora generate`: a prompt in, video files out; live in a terminal."""

import asyncio
import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from tests.client import body
from tests.fixtures.api import Api
from tests.fixtures.loopback import loopback
from tests.fixtures.renderer import rendering
from tests.serve_app.cli.conftest import HIGH, LOW, SMALL, WanLora


async def test_a_video_is_made_and_named_as_asked(api: Api, wan_lora: WanLora, tmp_path: Path) -> None:
    options = ("--trigger", "sks", "--neg", "rain", "--seed", "7", "--guidance", "3.5", "--recipe", "preview",
               "--sampler", "unipc", "--low-strength", "0.5")  # fmt: skip
    async with rendering(api):
        made = await wan_lora("generate", "[trigger] a fox", *SMALL, *options, "-o", tmp_path / "fox.mp4")
    assert made.exit_code == 0, made.output
    assert made.stdout.strip() == str(tmp_path / "fox.mp4")
    (spec,) = [render for request in api.observed.requests for render in request.specs]
    assert (spec.prompt, spec.negative_prompt, spec.seed, spec.guidance_scale) == ("sks a fox", "rain", 7, 3.5)
    assert (spec.recipe, spec.sampler, spec.width, spec.num_frames) == ("preview", "unipc", 64, 5)
    assert [lora.multiplier for lora in spec.loras] == [1.0, 0.5]


async def test_several_videos_are_named_by_their_seeds(api: Api, wan_lora: WanLora, tmp_path: Path) -> None:
    async with rendering(api):
        made = await wan_lora(
            "generate", "a fox", *SMALL, "--seed", "7", "--count", "2", "-o", tmp_path / "a.webp", "--json"
        )
    document = json.loads(made.stdout)
    assert document["files"] == [str(tmp_path / "a-7.webp"), str(tmp_path / "a-8.webp")]
    assert document["result"]["status"] == "succeeded"


def made_in(directory: Path, *endings: str) -> list[Path]:
    return [path for path in directory.iterdir() if path.name.endswith(endings)]


@pytest.mark.parametrize("named", [True, False])
async def test_a_preview_lies_beside_the_video_while_it_is_made(
    api: Api, wan_lora: WanLora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setattr("serve_app.api.events.hub.LOOK_S", 0.01)
    monkeypatch.chdir(tmp_path)
    options = ("--high", HIGH, "--low", LOW, "--size", "64x64", "--frames", "5", "--steps", "150", "--preview")
    out = ("-o", "fox.mp4") if named else ()
    async with rendering(api, step_s=0.05):
        making = asyncio.ensure_future(wan_lora("generate", "a fox", *options, *out))
        while not (previews := made_in(tmp_path, ".preview.webp")):
            assert not making.done(), making.result().output
            await asyncio.sleep(0.01)
        (request,), (preview,) = api.observed.requests, previews
        assert preview.name == f"{'fox' if named else request.id[:8]}.preview.webp"
        assert preview.read_bytes().startswith(b"RIFF")
        await api.store.requests.cancel(request.id)
        made = await making
    assert (made.exit_code, made_in(tmp_path, ".mp4", ".webp")) == (1, []), made.output


async def test_the_cost_is_reported_and_nothing_is_made(api: Api, wan_lora: WanLora) -> None:
    told = await wan_lora("generate", "a fox", *SMALL, "--cost")
    assert (told.exit_code, "64x64, 5 frames" in told.stdout, len(api.observed.requests)) == (0, True, 0), told.output


async def test_an_image_of_this_machine_travels_in_the_request(api: Api, wan_lora: WanLora, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"an image")
    refused = await wan_lora("generate", "a fox", *SMALL, "--image", tmp_path / "a.png")
    assert (refused.exit_code, "text-to-video" in refused.stderr) == (3, True), refused.output
    absent = await wan_lora("generate", "a fox", *SMALL, "--image", "./absent.png")
    assert (absent.exit_code, "--image ./absent.png" in absent.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--high", HIGH, "--size", "big"), "--size big: write width x height"),
        (("--high", HIGH, "--size", "1x1"), "--size: Input should be greater than or equal to 64"),
        (("--high", HIGH, "--steps", "0"), "--steps: Input should be greater than or equal to 1"),
        (("--high", HIGH, "--strength", "9"), "--strength: Input should be less than or equal to 2"),
        (("--high", HIGH, "-o", "a.avi"), "the name must end in .mp4, .webp, .zip"),
        (("--high", HIGH, "--lora", LOW), "--lora is the only LoRA"),
        ((), "no LoRA: write --high HIGH --low LOW"),
    ],
)
async def test_a_wrong_option_is_named(wan_lora: WanLora, options: tuple[str, ...], said: str) -> None:
    refused = await wan_lora("generate", "a fox", *options)
    assert (refused.exit_code, said in refused.stderr) == (2, True), refused.output


@pytest.mark.parametrize("command", ["generate", "grid"])
async def test_a_place_where_nothing_can_be_written_is_told_before_anything_is_rendered(
    api: Api, wan_lora: WanLora, tmp_path: Path, command: str
) -> None:
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "file").touch()
    loras = ("--high", HIGH) if command == "generate" else ("--pair", "wan22_demo")
    for out, said in (("a.mp4", "that is a folder"), ("file/a.mp4", "exists")):
        refused = await wan_lora(command, "a fox", *loras, "-o", tmp_path / out)
        assert (refused.exit_code, said in refused.stderr) == (2, True), refused.output
    assert api.observed.requests == []


async def test_what_the_service_refuses_is_reported_in_its_words(wan_lora: WanLora) -> None:
    refused = await wan_lora("generate", "a fox", "--high", "gone.safetensors", "--low", LOW, "--json")
    assert refused.exit_code == 3
    assert json.loads(refused.stdout)["error"]["details"] == {"missing_files": ["gone.safetensors"]}


@pytest.mark.slow
async def test_a_terminal_shows_a_live_bar(api: Api, tmp_path: Path) -> None:
    """In a real terminal (pty): what is written over and over again, and the file in the end."""
    terminal, inside = pty.openpty()
    async with loopback(api.app) as url, rendering(api, step_s=0.6):
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("wan-lora"), "generate", "a fox", *SMALL, "-o", "fox.mp4",
            stdin=inside, stdout=inside, stderr=inside, cwd=tmp_path,
            env={**os.environ, "WAN_SERVER": url, "TERM": "xterm-256color", "COLUMNS": "120"},
        )  # fmt: skip
        os.close(inside)
        reading = asyncio.create_task(asyncio.to_thread(read_all, terminal))
        assert await process.wait() == 0
    shown = (await reading).decode()
    steps = [int(step) for step in re.findall(r"step (\d) of 4", shown)]
    assert len(set(steps)) >= 2, shown
    assert steps == sorted(steps)
    assert "\x1b[" in shown
    assert "100%" in shown
    assert "fox.mp4" in shown.splitlines()[-1]
    assert (tmp_path / "fox.mp4").read_bytes()[4:8] == b"ftyp"


def read_all(terminal: int) -> bytes:
    """Return what is written into a terminal until its last process ends (Linux then says EIO)."""
    content = b""
    while True:
        try:
            content += os.read(terminal, 65536)
        except OSError:
            os.close(terminal)
            return content


async def test_watch_tells_events_to_the_end_also_of_a_request_that_has_ended(api: Api, wan_lora: WanLora) -> None:
    request_id = await api.submit(body())
    async with rendering(api):
        for _ in range(2):
            watched = await wan_lora("watch", request_id, "--json")
            *_, output, done = (json.loads(line) for line in watched.stdout.splitlines())
            assert (watched.exit_code, output["event"], output["index"]) == (0, "output", 0)
            assert (done["event"], done["status"]) == ("done", "succeeded")
