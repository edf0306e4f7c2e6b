"""The form of API keys, and which of them are good."""

import pytest

from serve_app.access.keys import Presented, Scope, digest, new_key

MADE = new_key("team-a", "laptop", {Scope.READ}, expires_at=1_000)


def test_a_token_matches_the_key_it_was_made_with_and_no_other() -> None:
    presented = Presented.of(MADE.token)
    other = new_key("team-a", "laptop", {Scope.READ}).key
    assert presented == (MADE.key.id, MADE.key.secret_sha256)
    assert presented != (other.id, other.secret_sha256)


def test_the_secret_is_neither_kept_nor_shown() -> None:
    secret = MADE.token.rpartition("_")[2]
    assert MADE.key.secret_sha256 == digest(MADE.token.removeprefix(f"wan_{MADE.key.id}_"))
    assert secret not in repr(MADE)
    assert MADE.key.secret_sha256 not in repr(MADE)


def test_a_key_is_good_until_it_expires_or_is_revoked() -> None:
    assert MADE.key.is_valid(999.9)
    assert not MADE.key.is_valid(1_000)


@pytest.mark.parametrize(
    "text",
    ["", "wan", "wan__", f"{MADE.token}x", MADE.token[:-1], f" {MADE.token}", "wan_é_" + "x" * 43],
    ids=lambda text: text.replace(MADE.token, "token").replace(MADE.token[:-1], "short"),  # the same in every process
)
def test_what_has_another_form_is_no_token(text: str) -> None:
    assert Presented.of(text) is None
