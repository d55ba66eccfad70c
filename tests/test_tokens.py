"""Who may join."""

import time

import jwt
import pytest

from audiomixer.tokens import TokenError, mint, verify

SECRET = "0123456789abcdef0123456789abcdef"


def test_a_token_is_good_for_its_room_or_for_any() -> None:
    assert verify(mint(SECRET, "alice", "demo"), SECRET, "demo").identity == "alice"
    assert verify(mint(SECRET, "alice"), SECRET, "demo").identity == "alice"


def signed(**payload: object) -> str:
    good = {"exp": time.time() + 3600, "grants": {"identity": "alice", "video": {"room": "demo"}}}
    return jwt.encode(good | payload, SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        (None, "needs an access token"),
        ("", "needs an access token"),
        ("nonsense", "Not enough segments"),
        (mint(SECRET, "alice", "other"), "it is for room 'other'"),
        (mint(SECRET, "alice", "demo", ttl=-60), "expired"),
        (mint(SECRET.upper(), "alice", "demo"), "Signature verification failed"),
        (signed(exp=None), "exp"),
        (signed(nbf=time.time() + 600), "not yet valid"),
        (signed(grants="alice"), "grants.identity"),
        (signed(grants={"identity": 5, "video": {}}), "grants.identity"),
        (signed(grants={"identity": "alice"}), "grants.video"),
        (jwt.encode({"exp": 9e9}, "", algorithm="none"), "token"),
    ],
)
def test_what_is_wrong_with_other_tokens_is_said(token: str | None, problem: str) -> None:
    with pytest.raises(TokenError, match=problem):
        verify(token, SECRET, "demo")


def test_clocks_may_differ_a_little() -> None:
    assert verify(mint(SECRET, "alice", "demo", ttl=-10), SECRET, "demo")
