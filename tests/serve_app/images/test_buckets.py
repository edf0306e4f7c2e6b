"""Images in s3://, and inputs kept there, against a server that speaks S3's protocol."""

import httpx
import obstore
import pytest
from obstore.store import S3Store

from serve_app.images.header import ImageLimits, ImageUnusable
from serve_app.images.sources.policy import ImageMissing, ImagePolicy
from serve_app.images.sources.remote import RemoteImages
from serve_app.net import Deadline, Forbidden, HostForbidden, Transient
from tests.fixtures.images import ServeImages, request
from tests.fixtures.s3 import S3Server
from tests.serve_app.images.files import file

PNG = file("PNG")


@pytest.fixture
def bucket(s3: S3Server) -> S3Store:
    """Return a bucket with an image, as the environment says where."""
    for name in ("images", "videos"):
        s3.create(name)
    store = S3Store.from_url("s3://images")
    obstore.put(store, "a folder/fox.png", PNG)
    return store


def read(address: str, limits: ImageLimits | None = None, **policy: object) -> bytes:
    allowed = ImagePolicy.model_validate({"hosts": ["s3://images"], "backoff_s": 0.01} | policy)
    return RemoteImages(allowed, limits or ImageLimits()).read(address, token=None, deadline=Deadline(5))


def test_an_image_is_read_from_a_bucket(bucket: S3Store) -> None:
    assert read("s3://images/a folder/fox.png") == PNG


def test_what_is_not_there_is_missing(bucket: S3Store) -> None:
    with pytest.raises(ImageMissing):
        read("s3://images/none.png")


def test_what_is_too_large_is_not_read(bucket: S3Store) -> None:
    with pytest.raises(ImageUnusable, match="more than the 100 bytes"):
        read("s3://images/a folder/fox.png", ImageLimits(max_bytes=100))


def test_other_buckets_are_forbidden(bucket: S3Store) -> None:
    with pytest.raises(HostForbidden):
        read("s3://other/fox.png")
    with pytest.raises(Forbidden, match="name a bucket"):
        read("s3://images/")


def test_a_store_that_does_not_answer_is_tried_again_and_tells_no_secret(
    bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Transient) as caught:
        read("s3://images/a folder/fox.png", attempts=2)
    assert "SECRET" not in caught.value.reason


async def test_the_image_of_a_request_may_be_kept_in_a_bucket_and_goes_with_it(
    bucket: S3Store, serve_images: ServeImages
) -> None:
    async with serve_images(output_url="s3://videos/pre") as api:
        request_id = await api.submit(request({"ctrl_img": "s3://images/a folder/fox.png"}))
        videos = S3Store.from_url("s3://videos/pre")
        (name,) = [item["path"] for page in obstore.list(videos) for item in page]
        assert name.startswith(f"{request_id}/inputs/")
        assert await api.outputs.read(name) == PNG
        await api.store.requests.cancel(request_id)
        assert (await api.http.delete(f"/v1/requests/{request_id}")).status_code == httpx.codes.OK
        assert [item for page in obstore.list(videos) for item in page] == []
