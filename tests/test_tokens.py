"""Who may join."""

import time

import jwt
import pytest

from audiomixer.auth.tokens import Access, Keyring, TokenError, mint

SECRET = "0123456789abcdef0123456789abcdef"
KEY, ACCOUNT = "SK" + "1" * 32, "AC" + "2" * 32


def verify(token: str | None, room: str) -> Access:
    access = Keyring({"": SECRET}).verify(token)
    access.check_room(room)
    return access


def test_a_token_is_good_for_its_room_or_for_any() -> None:
    assert verify(mint(SECRET, "alice", "demo"), "demo").identity == "alice"
    assert verify(mint(SECRET, "alice"), "demo").identity == "alice"


def signed(**payload: object) -> str:
    good = {"exp": time.time() + 100_000, "grants": {"identity": "alice", "video": {"room": "demo"}}}
    return jwt.encode(good | payload, SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        (None, "an access token is needed"),
        ("", "an access token is needed"),
        ("nonsense", "Not enough segments"),
        (mint(SECRET, "alice", "other"), "it is for room 'other'"),
        (mint(SECRET, "alice", "demo", ttl=-60), "expired"),
        (mint(SECRET.upper(), "alice", "demo"), "Signature verification failed"),
        (signed(exp=None), "exp"),
        (signed(nbf=time.time() + 86_400), "not yet valid"),
        (signed(grants="alice"), "grants: expected an object"),
        (signed(grants={"identity": 5, "video": {}}), "grants.identity"),
        (signed(grants={"identity": "alice"}), "grants.video"),
        (jwt.encode({"exp": 9e9}, "", algorithm="none"), "token"),
    ],
)
def test_what_is_wrong_with_other_tokens_is_said(token: str | None, problem: str) -> None:
    with pytest.raises(TokenError, match=problem):
        verify(token, "demo")


def test_clocks_may_differ_a_little() -> None:
    assert verify(mint(SECRET, "alice", "demo", ttl=-10), "demo")


def test_a_token_names_a_key_and_an_account() -> None:
    keyring = Keyring({KEY: SECRET}, ACCOUNT)
    assert keyring.verify(mint(SECRET, "alice", issuer=KEY, account_sid=ACCOUNT)).identity == "alice"
    with pytest.raises(TokenError, match="token: iss: "):
        keyring.verify(mint(SECRET, "alice", issuer=KEY[::-1], account_sid=ACCOUNT))
    with pytest.raises(TokenError, match="token: sub: "):
        keyring.verify(mint(SECRET, "alice", issuer=KEY))


def test_a_token_to_listen_joins_no_room() -> None:
    access = Keyring({"": SECRET}).verify(mint(SECRET, "alice", player={"playbackUrl": "https://x/?token=y"}))
    assert access.playback_url == "https://x/?token=y"
    with pytest.raises(TokenError, match="token: grants.video: "):
        access.check_room("demo")
