"""What rooms and participants may be called: what can be shown, and told apart."""

import re
from typing import Final

_NAME: Final = re.compile(r"(?!\.{1,2}$)[^/?#%\\\x00-\x20\x7f](?:[^/?#%\\\x00-\x1f\x7f]{0,126}[^/?#%\\\x00-\x20\x7f])?")
_LONGEST_IDENTITY: Final = 256
_JOINERS: Final = re.compile("(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
_INVISIBLE: Final = re.compile("[\u034f\u115f\u1160\u2800\u3164\uffa0]|[\u0300-\u036f\u20d0-\u20ff]{8}")
"""What looks like nothing, and heaps of combining marks."""


def check_name(name: str) -> None:
    """Refuses what cannot be a room's name: it appears in URLs.

    Raises:
        ValueError: It cannot.
    """
    if not _NAME.fullmatch(name) or not is_printable(name):
        raise ValueError(f"room: expected up to 128 printable characters, none of / ? # % \\, got {name!r}")


def is_printable(text: str) -> bool:
    """Whether it can be shown, and told from what looks the same.

    Joiners, which are no characters by themselves, are a part of Persian and of emoji, and of no word of ASCII.
    """
    text = _JOINERS.sub("", text)
    return text.isprintable() and not _INVISIBLE.search(text)


def check_identity(identity: str | None) -> str:
    """A participant's identity, without space around it.

    Raises:
        ValueError: It is none.
    """
    identity = (identity or "").strip()
    if not identity or not is_printable(identity) or len(identity.encode()) > _LONGEST_IDENTITY:
        raise ValueError(f"identity: expected 1 to {_LONGEST_IDENTITY} bytes of printable text")
    return identity
