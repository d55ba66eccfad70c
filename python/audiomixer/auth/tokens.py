"""Access tokens: JWTs, signed with the secret of an API key, that say who may join which room and play which stream."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

_SKEW: Final = 30
"""Clocks may differ by so many seconds: a token is good for as much longer."""
_LEAST_SECRET: Final = 32
"""Bytes of a secret, at least, as HS256 demands (RFC 7518, section 3.2)."""


class TokenError(Exception):
    """A token is missing, or not good for what it was used for."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a valid token says."""

    identity: str
    joins: bool
    """Whether it is for rooms at all."""
    room: str | None
    """Name or SID of the room that it is good for; None for any."""
    playback_url: str | None
    """Where it may play."""
    hosts: bool = False
    """Whether it is a host's, who may turn others down, put them out and play something."""

    def check_room(self, *names: str) -> None:
        """Sees that it is good for a room that goes by these names.

        Raises:
            TokenError: It is not.
        """
        if not self.joins:
            raise TokenError("token: grants.video: expected a grant to join rooms")
        if self.room is not None and self.room not in names:
            raise TokenError(f"token: it is for room {self.room!r}, not {names[0]!r}")


class Keyring:
    """The secrets that tokens are signed with.

    Args:
        keys: Secrets, of 32 bytes or more, by the SID of their API key. A secret under the empty SID is good whatever
            key a token names.
        account_sid: The account that tokens have to be for; any if None.

    Raises:
        ValueError: A secret is too short.
    """

    def __init__(self, keys: Mapping[str, str], account_sid: str | None = None) -> None:
        for secret in keys.values():
            check_secret(secret)
        self._keys = dict(keys)
        self._account_sid = account_sid

    def verify(self, token: str | None) -> Access:
        """What `token` grants.

        Raises:
            TokenError: It is missing, not signed with one of the keys, expired, or says nothing that is understood.
        """
        if not token:
            raise TokenError("token: expected one: an access token is needed here")
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
            secret = self._keys.get(issuer if isinstance(issuer, str) else "", self._keys.get(""))
            if secret is None:
                raise TokenError("token: iss: expected the SID of an API key of this server")
            payload = jwt.decode(
                token,
                secret,
                algorithms=["HS256"],
                leeway=_SKEW,
                options={"require": ["exp"], "verify_aud": False, "verify_sub": False, "verify_jti": False},
            )
        except jwt.ExpiredSignatureError:
            raise TokenError("token: it has expired") from None
        except (jwt.InvalidTokenError, UnicodeError, RecursionError) as error:
            raise TokenError(f"token: {error}") from None
        if self._account_sid is not None and payload.get("sub") != self._account_sid:
            raise TokenError("token: sub: expected the SID of this server's account")
        return _access(payload.get("grants"))


def _access(grants: Any) -> Access:
    if not isinstance(grants, dict):
        raise TokenError("token: grants: expected an object")
    identity, video, player = grants.get("identity"), grants.get("video"), grants.get("player")
    if identity is None and video is None and isinstance(player, dict):
        identity = ""  # Who only listens need not say who it is.
    elif not isinstance(identity, str) or not identity:
        raise TokenError("token: grants.identity: expected who it is for")
    room = video.get("room") if isinstance(video, dict) else None
    if room is not None and not isinstance(room, str):
        raise TokenError("token: grants.video.room: expected the name or SID of a room")
    url = player.get("playbackUrl") if isinstance(player, dict) else None
    return Access(
        identity,
        isinstance(video, dict),
        room or None,
        url if isinstance(url, str) else None,
        isinstance(video, dict) and video.get("host") is True,
    )


def mint(
    secret: str,
    identity: str,
    room: str | None = None,
    *,
    ttl: float = 3600,
    issuer: str = "",
    account_sid: str = "",
    player: Mapping[str, Any] | None = None,
    host: bool = False,
) -> str:
    """An access token: `identity` may join `room`, or any if None, within the next `ttl` seconds.

    Args:
        secret: That the server knows as well; 32 bytes or more.
        identity: Who holds the token.
        room: The room's name or SID.
        ttl: Seconds until it expires.
        issuer: SID of the API key whose secret this is.
        account_sid: SID of the account.
        player: The `grant` of a playback grant: the holder may then play that stream, and join no room.
        host: Whether the holder may do in the room what a host may.

    Raises:
        ValueError: The secret is too short, or the identity empty.
    """
    check_secret(secret)
    if not identity.strip():
        raise ValueError("identity: expected who the token is for")
    now = int(time.time())
    grants: dict[str, Any] = {"identity": identity}
    if player is None:
        grants["video"] = ({} if room is None else {"room": room}) | ({"host": True} if host else {})
    else:
        grants["player"] = dict(player)
    payload = {
        "iss": issuer,
        "sub": account_sid,
        "jti": secrets.token_hex(8),
        "nbf": now,
        "exp": now + round(ttl),
        "grants": grants,
    }
    return jwt.encode(payload, secret, algorithm="HS256", headers={"cty": "twilio-fpa;v=1"})


def check_secret(secret: str) -> None:
    """Refuses a secret that could be guessed.

    Raises:
        ValueError: It is too short.
    """
    if len(secret.encode()) < _LEAST_SECRET:
        raise ValueError(f"secret: expected at least {_LEAST_SECRET} bytes, got {len(secret.encode())}")
