"""The arg output_url: which URLs are accepted, and what the errors say."""

from pathlib import Path

import pytest

from serve_app.errors import ConfigurationInvalid
from serve_app.outputs import OutputStore

REFUSED = [
    "ftp://host/dir",
    "https://bucket.s3.amazonaws.com/x",
    "memory:///",
    "outputs",
    "",
    "file://outputs",
    "file:outputs",
    "s3://",
    "s3:///prefix",
    "s3://key:SECRET@bucket/prefix",
    "s3://bucket/prefix?secret=SECRET",
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_bad_url_names_the_arg_and_the_schemes_and_repeats_no_secret(url: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="output_url") as caught:
        OutputStore.from_url(url)
    assert caught.value.details == {"arg": "output_url", "schemes": ["file", "s3", "gs", "az"]}
    assert "SECRET" not in str(caught.value)


def test_an_unknown_scheme_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigurationInvalid, match="file://, s3://, gs://, az://; ftp"):
        OutputStore.from_url("ftp://host/dir")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationInvalid, match=r"Not a directory: .*/file/dir"):
        OutputStore.from_url((tmp_path / "file" / "dir").as_uri())


def test_azure_without_an_account_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigurationInvalid, match="Account must be specified"):
        OutputStore.from_url("az://container/prefix")


@pytest.mark.parametrize("url", ["s3://bucket/pre/fix", "s3://bucket", "gs://bucket/prefix", "az://container/prefix"])
def test_clouds_report_full_urls_and_no_path(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for form in (url, url + "/"):
        store = OutputStore.from_url(form)
        assert store.location("request/0-1.mp4") == f"{url}/request/0-1.mp4"
        assert store.local_path("request/0-1.mp4") is None


async def test_azure_signs_for_the_container_and_prefix_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    signed = await OutputStore.from_url("az://container/pre").signed_url("request/0-1.mp4", 60)
    assert signed.startswith("https://account.blob.core.windows.net/container/pre/request/0-1.mp4?")
