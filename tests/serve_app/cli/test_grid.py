"""`wan-lora grid`: checkpoints x strengths in one HTML file, which needs nothing else."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from serve_app.errors import RenderFailed
from tests.fixtures.api import Api
from tests.fixtures.renderer import rendering
from tests.serve_app.cli.conftest import HIGH, LOW, WanLora

SMALL = ("--size", "64x64", "--frames", "5", "--steps", "2")


class Page(HTMLParser):
    """What a browser would load, and the texts of the table's heads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.heads: list[str] = []
        self._in_head = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self._in_head = tag == "th"

    def handle_data(self, data: str) -> None:
        if self._in_head:
            self.heads.append(data)
            self._in_head = False


async def test_a_grid_is_one_file_with_every_video_in_it(api: Api, wan_lora: WanLora, tmp_path: Path) -> None:
    async with rendering(api):
        made = await wan_lora(
            "grid", "a <fox> & more", "--pair", "wan22_demo@500", "--pair", f"{HIGH},{LOW}", *SMALL,
            "--strengths", "0,0.5,1", "--seed", "7", "-o", tmp_path / "new" / "grid.html",
        )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert made.stdout.strip() == str(tmp_path / "new" / "grid.html")
    text = (tmp_path / "new" / "grid.html").read_text()
    page = Page(text)
    assert page.heads == ["strength 0", "strength 0.5", "strength 1", "demo/wan22_demo@500", Path(HIGH).stem]
    assert len(page.sources) == 6
    for source in page.sources:
        kind, _, content = source.partition(";base64,")
        assert (kind, base64.b64decode(content)[4:8]) == ("data:video/mp4", b"ftyp")
    assert "<h1>a &lt;fox&gt; &amp; more</h1>" in text
    assert not re.search(r"https?://", text)
    scales = [spec.loras[0].multiplier for request in api.observed.requests for spec in request.specs]
    assert scales == [0, 0.5, 1] * 2
    assert {spec.seed for request in api.observed.requests for spec in request.specs} == {7}


async def test_a_cell_that_fails_says_why_and_the_others_are_there(api: Api, wan_lora: WanLora, tmp_path: Path) -> None:
    async with rendering(api, failing={0: RenderFailed("the fox ran away; try again")}):
        made = await wan_lora("grid", "a fox", "--pair", "wan22_demo", *SMALL, "-o", tmp_path / "grid.html", "--json")
    assert made.exit_code == 1
    assert json.loads(made.stdout)["failed"] == ["demo/wan22_demo@500, strength 0"]
    text = (tmp_path / "grid.html").read_text()
    assert "RENDER_FAILED: the fox ran away" in text
    assert text.count("data:video/mp4") == 2


async def test_a_pair_that_is_not_there_lists_those_that_are(api: Api, wan_lora: WanLora) -> None:
    refused = await wan_lora("grid", "a fox", "--pair", "absent", *SMALL)
    assert (refused.exit_code, "demo/wan22_demo@500" in refused.stderr) == (2, True), refused.output
    wrong = await wan_lora("grid", "a fox", "--pair", "wan22_demo", "--strengths", "0,high", *SMALL)
    assert (wrong.exit_code, "--strengths high" in wrong.stderr) == (2, True)
    assert api.observed.requests == []


async def test_when_a_cell_is_refused_the_others_are_canceled(api: Api, wan_lora: WanLora) -> None:
    refused = await wan_lora(
        "grid", "a fox", "--pair", "wan22_demo", "--pair", "gone.safetensors,gone.safetensors", *SMALL
    )
    assert refused.exit_code == 3
    statuses = {(await api.status(request.id))["status"] for request in api.observed.requests}
    assert (len(api.observed.requests), statuses) == (3, {"canceled"})
