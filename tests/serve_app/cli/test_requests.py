"""`wan-lora status`, `cancel`, `delete`: about requests that were accepted."""

import json
from pathlib import Path

from tests.client import body
from tests.fixtures.api import UNKNOWN, Api, ServeApi
from tests.fixtures.keys import ADMIN_KEY
from tests.fixtures.renderer import rendering
from tests.serve_app.cli.conftest import SMALL, WanLora, beside


async def test_a_request_is_looked_at_canceled_and_deleted(api: Api, wan_lora: WanLora) -> None:
    request_id = await api.submit(body())
    shown = await wan_lora("status", request_id)
    assert (shown.exit_code, "next in the queue" in shown.output) == (0, True), shown.output
    assert (await wan_lora("cancel", request_id)).exit_code == 0
    after = await wan_lora("status", request_id, "--json")
    assert after.exit_code == 1
    assert json.loads(after.stdout)["requests"][0]["status"] == "canceled"
    assert "deleted" in (await wan_lora("delete", request_id)).output
    assert (await wan_lora("status", request_id)).exit_code == 3


async def test_requests_are_listed_page_by_page(api: Api, wan_lora: WanLora) -> None:
    for prompt in ("a fox", "an owl", "a fox at night"):
        await api.submit(body({"prompt": prompt}))
    shown = await wan_lora("list", "--text", "FOX", "--status", "in_queue", "--status", "failed")
    assert ("an owl" in shown.stdout, shown.stdout.count("a fox")) == (False, 2), shown.output
    first = json.loads((await wan_lora("list", "--limit", "2", "--json")).stdout)
    assert [one["prompts"][0]["prompt"] for one in first["requests"]] == ["a fox at night", "an owl"]
    rest = await wan_lora("list", "--after", first["next"])
    assert ("a fox" in rest.stdout, "an owl" in rest.stdout) == (True, False)


async def test_errors_have_exit_codes_and_json(wan_lora: WanLora) -> None:
    unknown = await wan_lora("status", UNKNOWN, "--json")
    assert unknown.exit_code == 3
    assert json.loads(unknown.stdout)["error"]["code"] == "REQUEST_NOT_FOUND"
    away = await wan_lora("status", UNKNOWN, "--patience", "0", WAN_SERVER="http://127.0.0.1:1")
    assert away.exit_code == 4
    assert "127.0.0.1:1 cannot be reached" in away.stderr
    wrong = await wan_lora("status")
    assert wrong.exit_code == 2


async def test_a_key_comes_from_the_environment(serve_api: ServeApi, tmp_path: Path) -> None:
    async with serve_api(admin_key=ADMIN_KEY) as api, beside(api) as run, rendering(api):
        without = await run("list", "--json")
        assert (without.exit_code, json.loads(without.stdout)["error"]["code"]) == (3, "KEY_REQUIRED")
        made = await run("generate", "a fox", *SMALL, "-o", tmp_path / "fox.mp4", WAN_API_KEY=ADMIN_KEY)
    assert made.exit_code == 0, made.output
    assert (tmp_path / "fox.mp4").is_file()
