"""Every Python example of docs/client.md, in order, against the API."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.api import ServeApi
from tests.fixtures.documents import blocks
from tests.fixtures.loopback import loopback
from tests.fixtures.renderer import rendering
from tests.serve_app.loras.files import full, save


@pytest.mark.slow
async def test_the_examples_run(
    serve_api: ServeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    save(tmp_path / "my_high_noise.safetensors", full(6))
    async with serve_api(uploads=True) as api, loopback(api.app) as url, rendering(api, step_s=0.1):
        for block in blocks("client.md", "python"):
            await asyncio.to_thread(exec, block.compiled(url), namespace)
    for name in ("circle.mp4", "circle-0.mp4", "off.mp4", "half.mp4", "full.mp4"):
        assert (tmp_path / name).read_bytes()[4:8] == b"ftyp"
    said = capsys.readouterr().out
    assert re.search(r"step \d of 8", said)
    assert "absent.safetensors" in said
    assert "my_job/my_high_noise.safetensors high 6" in said
    assert namespace["again"].prompts[0].seed == 42
