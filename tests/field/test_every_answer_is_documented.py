"""Whatever is sent to an endpoint, the answer is one that `/openapi.json` lists; `make contract` tries far more."""

import re

import pytest

from tests.contract import ARGS, listening, requests_in_every_state, try_contract
from tests.fixtures.api import ServeApi


@pytest.mark.slow
async def test_the_api_keeps_to_its_description(serve_api: ServeApi) -> None:
    async with serve_api(**ARGS) as api, listening(api) as url:
        known = await requests_in_every_state(api, count=5)
        kept, printed = await try_contract(url, examples=5, known=known)
    assert kept, printed
    selected = re.search(r"Operations: +(\d+) selected / (\d+) total", printed)
    assert selected, printed
    assert int(selected[1]) == int(selected[2]) > 0
