"""LoRA files for a render, held in a thread; a timeout, so that a render whose files never arrive fails.

Example:
    held = ExitStack()
    holding = asyncio.create_task(asyncio.to_thread(hold_all, files, lacking, spec, hf_token, held))
    try:
        files = await finished(holding, attempt, limit_s)
    finally:
        await released(holding, held)

A thread that waits for a disk cannot be interrupted. So the attempt ends, and the files are released when it returns.
"""

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TypeVar

from pydantic import SecretStr

from deployments.attempt import Attempt
from serve_app.errors import LoraNotFetched
from serve_app.loras.files import LoraFiles, LoraOnDisk
from serve_app.spec import LoraFile, RenderSpec

Files = TypeVar("Files")


def hold_all(
    files: LoraFiles, lacking: Iterable[LoraFile], spec: RenderSpec, hf_token: SecretStr | None, held: ExitStack
) -> dict[str, LoraOnDisk]:
    """Fetch and check the `lacking` LoRAs of a render, by `LoraFile.content`, until `held` is closed. Blocking.

    The request's token opens what the request names, and nothing that the server names. Raises what `LoraFiles.hold`
    raises.
    """
    return {
        lora.content: held.enter_context(
            files.hold(lora, strict=spec.strict, token=None if lora in spec.draft else hf_token)
        )
        for lora in lacking
    }


async def finished(holding: "asyncio.Task[Files]", attempt: Attempt, limit_s: float) -> Files:
    """Return what `holding` returns.

    Raises:
        AttemptAborted: the render was canceled, or its lease is lost.
        LoraNotFetched: it takes longer than `limit_s`.
    """
    stopped = asyncio.create_task(attempt.stopped.wait())
    try:
        await asyncio.wait({holding, stopped}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    attempt.check()
    if not holding.done():
        raise LoraNotFetched(
            f"the LoRA files of the render could not be read within {limit_s:g} s; look at the disk or the server that "
            "holds them"
        )
    return holding.result()


async def released(holding: "asyncio.Task[Files]", held: ExitStack) -> None:
    """Close `held` in a thread: now, or once `holding`, which fills it, has ended."""
    if holding.done():
        await asyncio.to_thread(held.close)
        return
    loop = asyncio.get_running_loop()

    def close(ended: "asyncio.Task[Files]") -> None:
        if not ended.cancelled():
            ended.exception()  # the attempt no longer waits for it
        loop.run_in_executor(None, held.close)

    holding.add_done_callback(close)
