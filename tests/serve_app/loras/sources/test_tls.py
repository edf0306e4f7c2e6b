"""https://, with certificates made here."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serve_app.errors import LoraPathRefused
from serve_app.loras.sources import LoraSources
from serve_app.net import ssl_context
from tests.fixtures.web_server import File, WebServer, redirect, web_server
from tests.serve_app.loras.sources.conftest import MakeSources, Pin
from tests.serve_app.loras.sources.servers import lora_bytes

FILE = lora_bytes()
PATH = "/a.safetensors"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed, for the name localhost only, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[WebServer]:
    with web_server(certificate) as server:
        server.pages[PATH] = File(FILE)
        yield server


@pytest.fixture
def sources(
    make: MakeSources, secure: WebServer, server: WebServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoraSources]:
    """Yield sources that trust the certificate, may reach both servers, and know no plain http."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    ssl_context.cache_clear()
    yield make(private_hosts=("localhost", "127.0.0.1"))
    ssl_context.cache_clear()


def test_a_file_comes_over_tls(sources: LoraSources, secure: WebServer, pin: Pin) -> None:
    located = sources.locate(f"https://localhost:{secure.port}{PATH}")
    with sources.fetch(pin(located)) as file:
        assert file.path.read_bytes() == FILE
    assert secure.requests[0].headers["host"] == f"localhost:{secure.port}"


def test_a_certificate_must_be_for_the_name_and_not_for_the_address(sources: LoraSources, secure: WebServer) -> None:
    with pytest.raises(LoraPathRefused, match="certificate"):
        sources.locate(f"{secure.url}{PATH}")
    assert not secure.requests


def test_a_certificate_must_be_trusted(make: MakeSources, secure: WebServer) -> None:
    with pytest.raises(LoraPathRefused, match="certificate"):
        make(private_hosts=("localhost",)).locate(f"https://localhost:{secure.port}{PATH}")


def test_no_redirect_leads_from_https_to_http(sources: LoraSources, secure: WebServer, server: WebServer) -> None:
    server.pages[PATH] = File(FILE)
    secure.pages["/go"] = redirect(f"{server.url}{PATH}")
    with pytest.raises(LoraPathRefused, match="leads to http://, which is off here"):
        sources.locate(f"https://localhost:{secure.port}/go")
    assert not server.requests
