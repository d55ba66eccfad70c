"""Access tokens: JWTs, signed with a secret, that say who may join which room."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt

_SKEW = 30
"""Clocks may differ by so many seconds: a token is good for as much longer."""


_LEAST_SECRET = 32
"""Bytes of a secret, at least, as HS256 demands (RFC 7518, section 3.2)."""


class TokenError(Exception):
    """A token is missing, or not good for what it was used for."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid token says."""

    identity: str
    room: str | None
    """The room it is good for; None for any."""


def mint(secret: str, identity: str, room: str | None = None, *, ttl: float = 3600, issuer: str = "") -> str:
    """An access token: `identity` may join `room`, or any if None, within the next `ttl` seconds.

    Args:
        secret: That the server knows as well; 32 bytes or more.
        identity: Who holds the token.
        room: The room's name.
        ttl: Seconds until it expires.
        issuer: SID of the API key whose secret this is.

    Raises:
        ValueError: The secret is too short, or the identity empty.
    """
    check_secret(secret)
    if not identity.strip():
        raise ValueError("identity: expected who the token is for")
    now = int(time.time())
    video: dict[str, Any] = {} if room is None else {"room": room}
    payload = {
        "iss": issuer,
        "jti": secrets.token_hex(8),
        "nbf": now,
        "exp": now + round(ttl),
        "grants": {"identity": identity, "video": video},
    }
    return jwt.encode(payload, secret, algorithm="HS256", headers={"cty": "twilio-fpa;v=1"})


def check_secret(secret: str) -> None:
    """Refuses a secret that could be guessed.

    Raises:
        ValueError: It is too short.
    """
    if len(secret.encode()) < _LEAST_SECRET:
        raise ValueError(f"secret: expected at least {_LEAST_SECRET} bytes, got {len(secret.encode())}")


def verify(token: str | None, secret: str, room: str) -> Grant:
    """What `token` grants, if it is good for `room`.

    Raises:
        TokenError: It is missing, not signed with `secret`, expired, or for another room.
    """
    if not token:
        raise TokenError("token: expected one: this room needs an access token")
    try:
        payload = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            leeway=_SKEW,
            options={"require": ["exp"], "verify_aud": False},
        )
    except jwt.ExpiredSignatureError:
        raise TokenError("token: it has expired") from None
    except jwt.InvalidTokenError as error:
        raise TokenError(f"token: {error}") from None
    grants = payload.get("grants")
    identity = grants.get("identity") if isinstance(grants, dict) else None
    video = grants.get("video") if isinstance(grants, dict) else None
    if not isinstance(identity, str) or not identity:
        raise TokenError("token: grants.identity: expected who it is for")
    if not isinstance(video, dict):
        raise TokenError("token: grants.video: expected a grant to join rooms")
    granted = video.get("room")
    if granted is not None and granted != room:
        raise TokenError(f"token: it is for room {granted!r}, not {room!r}")
    return Grant(identity, granted)
