"""hf:// and links to the Hub's pages, against a stand-in for the Hub whose downloads come from another origin."""

from dataclasses import replace

import huggingface_hub.constants
import pytest

from serve_app.errors import (
    LoraChanged,
    LoraInvalid,
    LoraNotFetched,
    LoraNotFound,
    LoraPathRefused,
    LoraSourceUnavailable,
)
from serve_app.loras.formats import parse_header
from serve_app.loras.sources import LoraSources
from serve_app.spec import Expert
from tests.fixtures.web_server import Exchange, File, sha256
from tests.serve_app.loras.sources.conftest import MakeSources, Pin
from tests.serve_app.loras.sources.servers import COMMIT, HUB_TOKEN, HubStandIn, lora_bytes

FILE = lora_bytes()
NAME = "high_noise.safetensors"
PINNED = f"hf://me/pair/{NAME}@{COMMIT}"
RESOLVE = f"/me/pair/resolve/main/{NAME}"


def authorized(requests: HubStandIn) -> set[str | None]:
    return {request.headers.get("authorization") for request in requests.server.requests}


def test_a_file_is_pinned_to_its_commit_and_known_by_its_hash(hub_sources: LoraSources, pin: Pin) -> None:
    located = hub_sources.locate(f"hf://me/pair/{NAME}")
    assert located.reference == f"hf://me/pair/{NAME}"
    assert (located.location, located.file_name, located.size) == (PINNED, NAME, len(FILE))
    assert located.content == located.sha256 == sha256(FILE)
    assert hub_sources.header(located) == parse_header(FILE, len(FILE), "x")
    with hub_sources.fetch(pin(located)) as file:
        assert file.path.read_bytes() == FILE


@pytest.mark.parametrize(
    "reference",
    [
        "hf://me/pair",
        "hf://me/pair@main",
        "HF://me/pair/high_noise.safetensors@main",
        "hf://me/pair@main/high_noise.safetensors",
        f"hf://me/pair/high_noise.safetensors@{COMMIT}",
        "hf://me/pair/high_noise.safetensors@refs/pr/1",
        "hf://me/pair@refs%2Fpr%2F1/high_noise.safetensors",
        "hf://me/pair@refs/pr/1",
        "{hub}/me/pair/blob/main/high_noise.safetensors",
        "{hub}/me/pair/resolve/main/high_noise.safetensors?download=true",
        "{hub}/me/pair/blob/refs%2Fpr%2F1/high%5Fnoise.safetensors",
    ],
)
def test_all_ways_to_write_a_file_name_the_same(hub_sources: LoraSources, hub: HubStandIn, reference: str) -> None:
    replace(hub, branches=("main", "refs/pr/1")).publish()
    assert hub_sources.locate(reference.format(hub=hub.server.url)).location == PINNED


def test_the_expert_chooses_among_the_files_of_a_repository(hub_sources: LoraSources, hub: HubStandIn) -> None:
    files = {"flow_HighNoise.safetensors": FILE, "flow_LowNoise.safetensors": lora_bytes(1), "README.md": b"#"}
    replace(hub, files=files).publish()
    assert hub_sources.locate("hf://me/pair", expert=Expert.HIGH).sha256 == sha256(FILE)
    assert hub_sources.locate("hf://me/pair", expert=Expert.LOW).sha256 == sha256(lora_bytes(1))
    with pytest.raises(LoraPathRefused, match="2 files are in the repository; add one") as caught:
        hub_sources.locate("hf://me/pair")
    assert caught.value.details["candidates"] == ["flow_HighNoise.safetensors", "flow_LowNoise.safetensors"]


def test_a_branch_that_moves_makes_a_new_content_and_old_renders_keep_theirs(
    hub_sources: LoraSources, hub: HubStandIn, pin: Pin
) -> None:
    before = pin(hub_sources.locate("hf://me/pair"))
    replace(hub, files={NAME: lora_bytes(1)}, commit="f" * 40).publish()
    after = hub_sources.locate("hf://me/pair")
    assert after.content == sha256(lora_bytes(1)) != before.content
    with hub_sources.fetch(before) as file:
        assert file.path.read_bytes() == FILE


def test_a_small_file_that_git_holds_is_known_by_its_commit(
    hub_sources: LoraSources, hub: HubStandIn, pin: Pin
) -> None:
    replace(hub, small=(NAME,)).publish()
    located = hub_sources.locate("hf://me/pair")
    assert (located.location, located.sha256) == (PINNED, None)
    with hub_sources.fetch(pin(located)) as file:
        assert file.sha256 == sha256(FILE)


def test_a_gated_repository_needs_a_token_which_only_the_hub_sees(
    hub_sources: LoraSources, hub: HubStandIn, pin: Pin
) -> None:
    replace(hub, gated=True).publish()
    for token in (None, "hf_another"):
        with pytest.raises(LoraPathRefused, match=r"hf_token of an account .* gated"):
            hub_sources.locate(f"hf://me/pair/{NAME}", token=token)
    hub.server.requests.clear()
    located = hub_sources.locate("hf://me/pair", token=HUB_TOKEN)
    hub_sources.header(located, HUB_TOKEN)
    with pytest.raises(LoraPathRefused, match="denies access"), hub_sources.fetch(pin(located)):
        pass
    with hub_sources.fetch(pin(located), HUB_TOKEN) as file:
        assert file.sha256 == sha256(FILE)
    assert f"Bearer {HUB_TOKEN}" in authorized(hub)
    assert hub.cdn.requests
    assert not [request for request in hub.cdn.requests if "authorization" in request.headers]


def test_the_services_own_token_serves_requests_that_bring_none(make: MakeSources, hub: HubStandIn) -> None:
    replace(hub, gated=True).publish()
    sources = make(hub_endpoint=hub.server.url, private_hosts=(hub.cdn.host,), allow_http=True, hub_token=HUB_TOKEN)
    assert sources.header(sources.locate("hf://me/pair")).file_size == len(FILE)
    assert authorized(hub) == {f"Bearer {HUB_TOKEN}"}
    with pytest.raises(LoraPathRefused):
        sources.locate("hf://me/pair", token="hf_another")


def test_a_token_that_lies_about_on_the_machine_is_not_sent(
    hub_sources: LoraSources, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    hub_sources.header(hub_sources.locate("hf://me/pair"))
    assert authorized(hub) == {None}


def test_a_token_with_a_line_break_is_refused_without_quoting_it(hub_sources: LoraSources, hub: HubStandIn) -> None:
    with pytest.raises(LoraPathRefused, match="hf_token holds characters") as caught:
        hub_sources.locate("hf://me/pair", token=f"{HUB_TOKEN}\nX-Other: 1")
    assert HUB_TOKEN not in str(caught.value.body())
    assert not hub.server.requests


@pytest.mark.parametrize("reference", ["hf://me/none", "hf://me/pair/none.safetensors", "hf://me/pair@none"])
def test_what_is_not_there_is_not_found(hub_sources: LoraSources, hub: HubStandIn, reference: str) -> None:
    with pytest.raises(LoraNotFound) as caught:
        hub_sources.locate(reference)
    assert caught.value.details == {"missing_files": [reference]}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/me/pair/tree/main", "page that lists files"),
        ("/me/pair/tree/main/folder", "page that lists files"),
        ("/me/pair", "page that lists files"),
        ("/datasets/me/pair/blob/main/a.safetensors", "no link to a file of a model repository"),
        ("/api/models/me/pair", "no link to a file of a model repository"),
        ("/me/pair/blob/main/../../a", "no link to a file of a model repository"),
        ("/me/pair/blob/main/%2e%2e/a", "not possible"),
    ],
)
def test_other_pages_of_the_hub_are_refused_with_advice(
    hub_sources: LoraSources, hub: HubStandIn, path: str, why: str
) -> None:
    with pytest.raises(LoraPathRefused, match=why) as caught:
        hub_sources.locate(f"{hub.server.url}{path}")
    assert "write hf://org/repository/file.safetensors@revision" in caught.value.message
    assert not hub.server.requests


@pytest.mark.parametrize(
    "reference",
    ["hf://", "hf://me", "hf://me/", "hf://../pair/a", "hf://me/pair/../a", "hf://me/pair//a", "hf://me/pair@a@b/c",
     "hf://me/pair@a/b@c", "hf://me/pair/a@b c", "hf://me/pa ir/a"],
)  # fmt: skip
def test_what_names_nothing_of_the_hub_is_refused(hub_sources: LoraSources, hub: HubStandIn, reference: str) -> None:
    with pytest.raises(LoraPathRefused, match="write hf://org"):
        hub_sources.locate(reference)
    assert not hub.server.requests


def test_a_repository_without_loras_is_refused(hub_sources: LoraSources, hub: HubStandIn) -> None:
    replace(hub, files={"README.md": b"#"}).publish()
    with pytest.raises(LoraPathRefused, match=r"no .safetensors file"):
        hub_sources.locate("hf://me/pair")


def test_a_repository_that_the_hub_hides_needs_a_token(hub_sources: LoraSources, hub: HubStandIn) -> None:
    hub.server.pages[RESOLVE] = lambda exchange, _count: exchange.answer(401, X_Error_Code="RepoNotFound")
    with pytest.raises(LoraPathRefused, match="send hf_token"):
        hub_sources.locate(f"hf://me/pair/{NAME}")


def test_a_busy_hub_is_asked_again(hub_sources: LoraSources, hub: HubStandIn) -> None:
    page = hub.server.pages[RESOLVE]

    def busy(exchange: Exchange, count: int) -> None:
        exchange.answer(503) if count < 3 else page(exchange, count)

    hub.server.pages[RESOLVE] = busy
    assert hub_sources.locate(f"hf://me/pair/{NAME}").location == PINNED


@pytest.mark.parametrize(
    ("page", "error", "why", "patience"),
    [
        (lambda exchange, _count: exchange.answer(500), LoraSourceUnavailable, "answers 500", {}),
        (lambda exchange, _count: exchange.wait(), LoraSourceUnavailable, "takes too long", {"read_timeout_s": 0.3}),
        (lambda exchange, _count: exchange.answer(418), LoraPathRefused, "answers 418", {}),
        (File(FILE), LoraSourceUnavailable, "does not tell its commit", {}),
    ],
)
def test_a_hub_that_does_not_answer_as_one_is_said_so(
    make: MakeSources, hub: HubStandIn, page: File, error: type[Exception], *, why: str, patience: dict[str, float]
) -> None:
    hub.server.pages[RESOLVE] = page
    sources = make(hub_endpoint=hub.server.url, private_hosts=(hub.cdn.host,), allow_http=True, attempts=2, **patience)
    with pytest.raises(error, match=why):
        sources.locate(f"hf://me/pair/{NAME}")


def test_a_listing_that_is_none_is_refused(hub_sources: LoraSources, hub: HubStandIn) -> None:
    hub.server.pages["/api/models/me/pair"] = lambda exchange, _count: exchange.answer(200, b"<html>")
    with pytest.raises(LoraPathRefused, match="does not answer as a Hub does"):
        hub_sources.locate("hf://me/pair")


def test_offline_is_said_so(hub_sources: LoraSources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LoraSourceUnavailable, match="offline"):
        hub_sources.locate("hf://me/pair")


def test_a_damaged_download_is_made_once_more_and_then_given_up(
    hub_sources: LoraSources, hub: HubStandIn, pin: Pin
) -> None:
    lora = pin(hub_sources.locate("hf://me/pair"))
    path = f"/{sha256(FILE)}"
    good = File(FILE)
    damaged = File(FILE[:-1] + b"?")
    hub.cdn.pages[path] = damaged
    with pytest.raises(LoraNotFetched, match="damaged twice"), hub_sources.fetch(lora):
        pass
    assert hub.cdn.count(path) == 2
    hub.cdn.pages[path] = lambda exchange, count: (damaged if count == 3 else good)(exchange, count)
    with hub_sources.fetch(lora) as file:
        assert file.path.read_bytes() == FILE
    assert hub.cdn.count(path) == 4


def test_a_commit_that_was_deleted_has_changed(hub_sources: LoraSources, hub: HubStandIn, pin: Pin) -> None:
    lora = pin(hub_sources.locate("hf://me/pair"))
    del hub.server.pages[f"/me/pair/resolve/{COMMIT}/{NAME}"]
    with pytest.raises(LoraChanged), hub_sources.fetch(lora):
        pass


def test_where_the_hub_keeps_its_files_must_be_allowed_too(make: MakeSources, hub: HubStandIn) -> None:
    sources = make(hub_endpoint=hub.server.url, allow_http=True)
    located = sources.locate("hf://me/pair")
    with pytest.raises(LoraPathRefused, match="not on the public internet"):
        sources.header(located)


def test_the_hub_is_a_host_like_others(make: MakeSources, hub: HubStandIn) -> None:
    sources = make(hub_endpoint=hub.server.url, hosts=("example.com",))
    with pytest.raises(LoraPathRefused, match="lora_hosts"):
        sources.locate("hf://me/pair")
    assert not hub.server.requests


def test_a_file_beyond_the_limit_is_refused(make: MakeSources, hub: HubStandIn) -> None:
    sources = make(hub_endpoint=hub.server.url, max_bytes=1000)
    with pytest.raises(LoraPathRefused, match="at most 1000"):
        sources.locate("hf://me/pair")


def test_what_is_no_safetensors_file_is_refused_by_its_beginning(hub_sources: LoraSources, hub: HubStandIn) -> None:
    replace(hub, files={NAME: b"PK\x03\x04" + bytes(1000)}).publish()
    with pytest.raises(LoraInvalid, match="pickle"):
        hub_sources.header(hub_sources.locate("hf://me/pair"))
