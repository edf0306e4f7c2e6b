"""`wan-lora compare`: two files in, the settings to change out."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from deployments.media.encoding import encode
from serve_app.cli import app
from serve_app.spec import OutputFormat
from tests.fixtures.api import Api
from tests.fixtures.renderer import rendering
from tests.serve_app.cli.conftest import SMALL, WanLora
from tests.serve_app.videos.test_comparison import clip


def compare(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, args)], env={"COLUMNS": "200"})


def test_a_preview_of_another_size_and_length_says_which_options_to_write(tmp_path: Path) -> None:
    encode(clip(), 16, OutputFormat.WEBP, tmp_path / "preview.webp")
    encode(clip(length=8, width=128), 24, OutputFormat.MP4, tmp_path / "output.mp4")
    shown = compare(tmp_path / "preview.webp", tmp_path / "output.mp4")
    assert shown.exit_code == 0, shown.output
    for option in ("--size 96x64", "--frames 12", "--fps 16"):
        assert option in shown.output
    found = json.loads(compare(tmp_path / "preview.webp", tmp_path / "output.mp4", "--json").stdout)
    assert [finding["setting"] for finding in found["findings"]][:3] == ["size", "frames", "fps"]
    assert found["difference"]["lengths"] == [12, 8]


def test_the_same_video_in_two_formats_shows_the_same(tmp_path: Path) -> None:
    encode(clip(), 16, OutputFormat.WEBP, tmp_path / "preview.webp")
    encode(clip(), 16, OutputFormat.MP4, tmp_path / "output.mp4")
    assert "Both show the same." in compare(tmp_path / "preview.webp", tmp_path / "output.mp4").output


def test_a_file_that_is_no_video_and_one_that_is_absent_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    assert compare(tmp_path / "a.mp4", tmp_path / "a.mp4").exit_code == 2
    absent = compare(tmp_path / "absent.mp4", tmp_path / "a.mp4")
    assert (absent.exit_code, "absent.mp4" in absent.stderr) == (2, True)


async def test_recipes_and_samplers_are_tried_and_the_nearest_is_named(
    api: Api, wan_lora: WanLora, tmp_path: Path
) -> None:
    async with rendering(api):
        for recipe, name in (("preview", "preview.webp"), ("reference", "output.mp4")):
            options = ("--recipe", recipe, "--sampler", "euler" if recipe == "preview" else "unipc")
            assert (await wan_lora("generate", "a fox", *SMALL, *options, "-o", tmp_path / name)).exit_code == 0
        tried = await wan_lora("compare", tmp_path / "preview.webp", tmp_path / "output.mp4", "--try", "--json")
    found = json.loads(tried.stdout)
    assert found["settings"]["recipe"] == {"preview": "preview", "output": "reference"}
    assert len(found["trials"]) == 4
    assert (found["trials"][0]["recipe"], found["trials"][0]["sampler"]) == ("preview", "euler")
    assert found["trials"][0]["mean_psnr"] > found["trials"][1]["mean_psnr"] + 3


async def test_a_file_without_settings_cannot_be_tried(wan_lora: WanLora, tmp_path: Path) -> None:
    encode(clip(), 16, OutputFormat.MP4, tmp_path / "a.mp4")
    refused = await wan_lora("compare", tmp_path / "a.mp4", tmp_path / "a.mp4", "--try")
    assert (refused.exit_code, "no settings in it" in refused.stderr) == (2, True)
