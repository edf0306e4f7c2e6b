"""What a client cannot make the service connect to."""

import socket
from pathlib import Path

import pytest

from serve_app.errors import LoraPathRefused, LoraSourceUnavailable, ServiceError
from serve_app.loras.sources import LoraSources, is_remote
from tests.fixtures.web_server import File, WebServer, redirect
from tests.serve_app.loras.sources.conftest import MakeSources, Pin
from tests.serve_app.loras.sources.servers import lora_bytes

FILE = lora_bytes()
PATH = "/a.safetensors"
NOT_PUBLIC = "not on the public internet"


def refusal(sources: LoraSources, reference: str) -> str:
    with pytest.raises(LoraPathRefused) as caught:
        sources.locate(reference)
    return caught.value.message


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "[::ffff:127.0.0.1]", "[::1]", "0"],
)
def test_loopback_is_refused_however_it_is_written(make: MakeSources, server: WebServer, host: str) -> None:
    server.pages[PATH] = File(FILE)
    message = refusal(make(allow_http=True), f"http://{host}:{server.port}{PATH}")
    assert NOT_PUBLIC in message
    assert not server.requests


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.0.1", "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]"])
def test_private_addresses_are_refused(make: MakeSources, host: str) -> None:
    assert NOT_PUBLIC in refusal(make(), f"https://{host}/latest/meta-data")


def test_a_metadata_service_is_refused_even_where_private_addresses_are_allowed(make: MakeSources) -> None:
    sources = make(private_hosts=("169.254.169.254",), allow_http=True)
    assert NOT_PUBLIC in refusal(sources, "http://169.254.169.254/latest/meta-data")


def test_an_operator_allows_one_port_of_a_private_host(make: MakeSources, server: WebServer, other: WebServer) -> None:
    server.pages[PATH] = other.pages[PATH] = File(FILE)
    sources = make(private_hosts=(f"localhost:{server.port}",), allow_http=True)
    assert sources.locate(f"http://LOCALHOST:{server.port}{PATH}").size == len(FILE)
    assert NOT_PUBLIC in refusal(sources, f"http://localhost:{other.port}{PATH}")


def test_a_redirect_to_a_private_address_is_refused(sources: LoraSources, server: WebServer, other: WebServer) -> None:
    other.pages[PATH] = File(FILE)
    for target in (f"{other.url}{PATH}", f"//localhost:{other.port}{PATH}", "http://169.254.169.254/"):
        server.pages["/go"] = redirect(target)
        assert NOT_PUBLIC in refusal(sources, f"{server.url}/go")
    assert not other.requests


def test_a_redirect_at_render_time_is_judged_too(
    sources: LoraSources, server: WebServer, other: WebServer, pin: Pin
) -> None:
    server.pages[PATH] = File(FILE)
    lora = pin(sources.locate(f"{server.url}{PATH}"))
    server.pages[PATH] = redirect(f"{other.url}{PATH}")
    with pytest.raises(LoraPathRefused, match=NOT_PUBLIC), sources.fetch(lora):
        pass


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_refused(sources: LoraSources, server: WebServer, target: str) -> None:
    server.pages["/go"] = redirect(target)
    assert f"leads to {target.partition(':')[0]}://" in refusal(sources, f"{server.url}/go")


def test_a_redirect_with_a_password_is_refused(sources: LoraSources, server: WebServer) -> None:
    server.pages["/go"] = redirect(f"http://user:password@{server.host}{PATH}")
    assert "user name or password" in refusal(sources, f"{server.url}/go")


def test_plain_http_is_off_by_default(make: MakeSources, server: WebServer) -> None:
    message = refusal(make(private_hosts=(server.host,)), f"{server.url}{PATH}")
    assert "leads to http://, which is off here" in message
    assert not server.requests


def test_hosts_are_those_of_the_policy(make: MakeSources, server: WebServer) -> None:
    sources = make(hosts=("*.example.com", "127.0.0.1"), private_hosts=(server.host,), allow_http=True)
    server.pages[PATH] = File(FILE)
    assert sources.locate(f"{server.url}{PATH}").size == len(FILE)
    server.pages["/go"] = redirect("https://example.com/a")
    for reference in (f"{server.url}/go", "https://example.com/a"):
        assert "'example.com' is none of those that LoRAs may come from (lora_hosts)" in refusal(sources, reference)


def test_proxies_of_the_environment_are_not_used(
    sources: LoraSources, server: WebServer, other: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, other.url)
    server.pages[PATH] = File(FILE)
    assert sources.locate(f"{server.url}{PATH}").size == len(FILE)
    assert not other.requests


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("https://user:password@example.com/a", "user name or password"),
        ("https://", "no host"),
        ("https:///a", "no host"),
        ("https://[::1", "no valid URL"),
        ("https://0177.0.0.1/a", "no valid URL"),
        ("https://exa\0mple.com/a", "no valid URL"),
        (f"https://{'x' * 70}.com/a", "unknown|no valid"),
    ],
)
def test_addresses_that_lead_nowhere_are_refused(make: MakeSources, reference: str, why: str) -> None:
    with pytest.raises(LoraPathRefused, match=why):
        make().locate(reference)


def test_a_name_that_nobody_has_is_refused_unless_nobody_can_be_asked(make: MakeSources) -> None:
    with pytest.raises(socket.gaierror) as unresolved:
        socket.getaddrinfo("no-such-name.invalid", 443)
    silent = unresolved.value.errno == socket.EAI_AGAIN
    expected: type[ServiceError] = LoraSourceUnavailable if silent else LoraPathRefused
    with pytest.raises(expected, match="no-such-name"):
        make(attempts=1).locate("https://no-such-name.invalid/a")


@pytest.mark.parametrize(
    "reference", ["ftp://host/a", "file:///etc/passwd", "FILE:///etc/passwd", "data:text/plain,x", "ssh://host/a"]
)
def test_an_unknown_source_is_refused_naming_the_known_ones(make: MakeSources, reference: str) -> None:
    assert is_remote(reference)
    message = refusal(make(), reference)
    assert "https://, hf://, s3://, gs://, az:// and paths in lora_root" in message


def test_local_files_are_found_where_they_are(make: MakeSources, tmp_path: Path) -> None:
    sources = make()
    file = tmp_path / "root" / "a_high.safetensors"
    file.write_bytes(FILE)
    located = sources.locate("a_high.safetensors")
    assert (located.location, located.path, located.size) == (str(file), file, len(FILE))
    assert set(sources.header(located).tensors) == {"a"}
    file.write_bytes(FILE + b"x")
    assert sources.locate("a_high.safetensors").content != located.content
