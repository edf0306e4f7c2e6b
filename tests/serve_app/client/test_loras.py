"""LoRA files of the service, through the Python client."""

from serve_app.client import Client
from tests.client import pair
from tests.serve_app.client.conftest import in_thread


async def test_pairs_and_files_are_listed(remote: Client) -> None:
    found = await in_thread(remote.loras)
    (listed,) = found.pairs
    assert listed.high is not None
    assert listed.low is not None
    assert [listed.high.path, listed.low.path] == [lora["path"] for lora in pair()]
    assert len(found.files) == 2
