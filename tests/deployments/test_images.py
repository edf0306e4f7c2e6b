"""A Generator and the control image of a render: fetched from the output store, verified, fitted, told of."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serve_app.images.decoding import ImageFacts, inspect
from serve_app.images.header import ImageLimits
from serve_app.images.resolver import ResolvedImage
from serve_app.images.stored import RequestInputs
from serve_app.jobs.records import Claim, input_name
from serve_app.observers import End
from serve_app.outputs import OutputStore
from serve_app.spec import Fit, InputImage
from tests.deployments.conftest import Bench
from tests.deployments.test_generator import ended
from tests.serve_app.images.files import file

JPEG = file("JPEG", width=90, height=60, orientation=8)


def resolved(data: bytes) -> ResolvedImage:
    facts: ImageFacts = inspect(data, ImageLimits())
    return ResolvedImage(data, hashlib.sha256(data).hexdigest(), facts)


async def claimed(bench: Bench, data: bytes, fit: Fit = Fit.STRETCH) -> Claim:
    """Return a claim on a render whose image was kept as the Ingress keeps it."""
    image = resolved(data)
    spec = bench.spec("mine", width=64, height=48, image=InputImage(sha256=image.sha256, fit=fit))
    claim = await bench.claim(spec)
    outputs = OutputStore.from_url(bench.plan.settings.output_url)
    await RequestInputs(outputs, claim.request_id).keep(image)
    return claim


def kept_at(bench: Bench, claim: Claim) -> Path:
    image = claim.spec.image
    assert image is not None
    return bench.directory / "outputs" / input_name(claim.request_id, image.sha256)


@pytest.mark.parametrize("fit", list(Fit))
async def test_the_pipeline_gets_the_image_in_the_size_of_the_video(bench: Bench, fit: Fit) -> None:
    replica = bench.replica()
    await replica.generator.render(await claimed(bench, JPEG, fit))
    assert await ended(replica) is End.SUCCEEDED
    (image,) = replica.pipeline.images
    assert image is not None
    assert image.shape == (48, 64, 3)
    if fit is Fit.STRETCH:
        stored = Image.open(io.BytesIO(JPEG)).convert("RGB")
        assert np.array_equal(image, np.asarray(stored.resize((64, 48), Image.Resampling.LANCZOS)))


async def test_the_result_says_what_was_done_to_it(bench: Bench) -> None:
    replica = bench.replica()
    claim = await claimed(bench, JPEG, Fit.PAD)
    await replica.generator.render(claim)
    await ended(replica)
    output = (await bench.render(claim)).output
    assert output is not None
    assert output.metadata.image is not None
    assert output.metadata.image.model_dump(mode="json") == {
        "sha256": hashlib.sha256(JPEG).hexdigest(),
        "fit": "pad",
        "format": "jpeg",
        "width": 90,
        "height": 60,
        "frames": 1,
        "alpha_dropped": False,
        "orientation_ignored": 8,
    }


async def test_a_render_without_an_image_gets_none(bench: Bench) -> None:
    replica = bench.replica()
    claim = await bench.claim(bench.spec("mine"))
    await replica.generator.render(claim)
    await ended(replica)
    assert replica.pipeline.images == [None]
    output = (await bench.render(claim)).output
    assert output is not None
    assert output.metadata.image is None


@pytest.mark.parametrize("befalls", ["gone", "other bytes", "cut off", "a folder", "a FIFO"])
async def test_an_image_that_is_not_the_accepted_one_fails_its_render_without_a_step(
    bench: Bench, befalls: str
) -> None:
    replica = bench.replica()
    claim = await claimed(bench, JPEG)
    path = kept_at(bench, claim)
    content = {"other bytes": file("PNG"), "cut off": JPEG[:-20]}.get(befalls)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    elif befalls == "a folder":
        path.mkdir()
    elif befalls == "a FIFO":
        os.mkfifo(path)
    await replica.generator.render(claim)
    assert await ended(replica) is End.FAILED
    render = await bench.render(claim)
    assert render.error_code == "CONTROL_IMAGE_LOST"
    assert "send the request again" in str(render.error_message)
    assert replica.heard.signals == ["started", "ended failed"]
