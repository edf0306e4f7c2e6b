"""`wan-lora loras` and `upload`, and local files that `generate` sends along."""

import json
from pathlib import Path

from tests.fixtures.api import Api, ServeApi
from tests.fixtures.renderer import rendering
from tests.serve_app.cli.conftest import HIGH, LOW, WanLora, beside
from tests.serve_app.loras.files import full, save

SMALL = ("--size", "64x64", "--frames", "5", "--steps", "2")


async def test_pairs_are_listed_with_the_paths_that_requests_take(wan_lora: WanLora) -> None:
    shown = await wan_lora("loras")
    assert all(text in shown.stdout for text in ("demo/wan22_demo", "500", HIGH, LOW)), shown.output
    assert "demo" not in (await wan_lora("loras", "other")).stdout
    found = json.loads((await wan_lora("loras", "--json")).stdout)
    assert [pair["name"] for pair in found["pairs"]] == ["demo/wan22_demo"]


async def test_files_are_uploaded_once_and_refused_where_they_are_no_loras(serve_api: ServeApi, tmp_path: Path) -> None:
    file = save(tmp_path / "style_high_noise.safetensors", full(6))
    (tmp_path / "text.safetensors").write_text("no LoRA")
    async with serve_api(uploads=True) as api, beside(api) as run:
        for _ in range(2):
            kept = await run("upload", file, "--to", "my_job")
            assert (kept.exit_code, kept.stdout.strip()) == (0, "my_job/style_high_noise.safetensors"), kept.output
        refused = await run("upload", tmp_path / "text.safetensors")
        assert (refused.exit_code, "text.safetensors" in refused.stderr) == (3, True), refused.output
        save(file, full(7))
        assert (await run("upload", file, "--to", "my_job")).exit_code == 3
        assert (await run("upload", file, "--to", "my_job", "--overwrite")).exit_code == 0
        assert (api.lora_root / "my_job" / file.name).read_bytes() == file.read_bytes()


async def test_generate_uploads_the_files_of_this_machine_once(serve_api: ServeApi, tmp_path: Path) -> None:
    files = [save(tmp_path / f"style_{side}_noise.safetensors", full(6)) for side in ("high", "low")]
    pair = ("--high", files[0], "--low", files[1])
    async with serve_api(uploads=True) as api, beside(api) as run, rendering(api):
        said = [(await run("generate", "a fox", *pair, *SMALL, "-o", tmp_path / "a.mp4")).stderr for _ in range(2)]
    assert [text.count("uploading") for text in said] == [2, 0]
    for request in api.observed.requests:
        (spec,) = request.specs
        assert [Path(lora.reference).name for lora in spec.loras] == [file.name for file in files]


async def test_a_service_without_uploads_says_what_to_do(api: Api, wan_lora: WanLora, tmp_path: Path) -> None:
    file = save(tmp_path / "style_high_noise.safetensors", full(6))
    refused = await wan_lora("generate", "a fox", "--high", file, *SMALL)
    assert (refused.exit_code, "arg uploads" in refused.stderr) == (3, True), refused.output
    assert api.observed.requests == []
