"""Who may play: the tokens that WHEP and HLS ask for."""

from typing import Final

from audiomixer.auth.playback import PlaybackKey, token_of
from audiomixer.auth.tokens import Access, Keyring, TokenError

SESSION_HEADER: Final = "Playback-Session"
"""Of an answer to a WHEP offer: the token to come back with."""


class OriginError(Exception):
    """A page of this site may not play."""


class Turnstile:
    """Lets players in.

    Args:
        key: What playback tokens are signed with.
        keyring: What access tokens are signed with, which may hold a playback grant.
    """

    def __init__(self, key: PlaybackKey, keyring: Keyring) -> None:
        self._key = key
        self._keyring = keyring

    def admit(self, token: str | None, sid: str, origin: str | None) -> str:
        """Sees that `token` is good for playing the stream `sid` on a page of `origin`; gives a token to go on with.

        Raises:
            TokenError: It is not good.
            OriginError: It is, but not on this page.
        """
        try:
            permission = self._key.verify(token, sid)
        except TokenError:
            access = self._access(token)
            if access is None:
                raise
            url = access.playback_url
            if url is None:
                raise TokenError("token: expected one with a player grant") from None
            permission = self._key.verify(token_of(url), sid)
        if permission.origin and origin and origin != permission.origin:
            raise OriginError(f"origin: expected {permission.origin}, got {origin}")
        return self._key.session(permission)

    def _access(self, token: str | None) -> Access | None:
        """What an access token says; None if it is none."""
        try:
            return self._keyring.verify(token)
        except TokenError:
            return None
