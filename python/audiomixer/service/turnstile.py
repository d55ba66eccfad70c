"""Who may play: the tokens that WHEP and HLS ask for."""

from typing import Final

from audiomixer.playback import PlaybackKey, token_of
from audiomixer.tokens import Keyring, TokenError

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
            url = self._granted(token)
            if url is None:
                raise
            permission = self._key.verify(token_of(url), sid)
        if permission.origin and origin and origin != permission.origin:
            raise OriginError(f"origin: expected {permission.origin}, got {origin}")
        return self._key.session(permission)

    def _granted(self, token: str | None) -> str | None:
        """The playback URL in an access token; None if it is no access token, or none to play."""
        try:
            return self._keyring.verify(token).playback_url
        except TokenError:
            return None
