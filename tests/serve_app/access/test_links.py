"""Signed links: until when they open what."""

from time import time

import pytest

from serve_app.access.links import EXPIRES, SIGNATURE, LinkSigner

SIGNER = LinkSigner(b"a secret of 32 bytes, or rather so")
PATH = "/v1/requests/3a9c5f7e-6f0b-4f0e-9d55-0f2a6c1b7d10/outputs/0"


def accepted(query: dict[str, str], path: str = PATH, signer: LinkSigner = SIGNER) -> bool:
    return signer.accepts(path, query[EXPIRES], query[SIGNATURE])


def test_a_link_opens_its_path_alone_and_for_its_own_service() -> None:
    query = SIGNER.query(PATH, lifetime_s=60)
    assert accepted(query)
    assert not accepted(query, PATH.replace("/0", "/1"))
    assert not accepted(query, signer=LinkSigner(b"another secret"))


def test_a_link_expires() -> None:
    query = SIGNER.query(PATH, lifetime_s=60)
    assert 60 <= int(query[EXPIRES]) - time() <= 360
    assert not accepted(SIGNER.query(PATH, lifetime_s=-301))


def test_links_of_five_minutes_are_the_same() -> None:
    assert len({SIGNER.query(PATH, lifetime_s=60)[SIGNATURE] for _ in range(3)}) <= 2


@pytest.mark.parametrize("expires", ["", "0", "-1", "1e9", "９９９９９９９９９９", "9" * 5000, "99999999999"])
def test_a_time_that_was_not_signed_opens_nothing(expires: str) -> None:
    assert not accepted(SIGNER.query(PATH, lifetime_s=60) | {EXPIRES: expires})


def test_a_signature_of_other_characters_opens_nothing() -> None:
    assert not accepted(SIGNER.query(PATH, lifetime_s=60) | {SIGNATURE: "é"})
