"""URLs of rooms: `local:NAME`, `livekit+ws(s)://HOST/ROOM`, `janus+ws(s)://HOST/ROOM`."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from audiomixer.rooms.names import check_name

Kind = Literal["local", "livekit", "janus"]

PARAMETERS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "local": (),
    "livekit": ("token", "api_key", "api_secret"),
    "janus": ("pin", "token", "admin_key", "api_secret", "secret"),
}
"""What the query of a URL may tell."""

_KINDS: Final[Mapping[str, Kind]] = {
    "livekit+ws": "livekit",
    "livekit+wss": "livekit",
    "janus+ws": "janus",
    "janus+wss": "janus",
}
_LONGEST_NAME: Final = 256
_EXPECTED: Final = "local:NAME, livekit+ws(s)://HOST/ROOM or janus+ws(s)://HOST/ROOM"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a room is."""

    kind: Kind
    name: str
    """The room's."""
    server: str = ""
    """URL of its server's WebSocket, without a slash at its end."""
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials, by their names."""

    @classmethod
    def parse(cls, url: str) -> "Place":
        """The place that a URL names.

        Raises:
            ValueError: It names none; the message has nothing of it that may be secret.
        """
        if url.startswith("local:"):
            name = url.removeprefix("local:")
            check_name(name)
            return cls("local", name)
        try:
            parts = urlsplit(url)
            kind = _KINDS[parts.scheme]
            is_server = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except (KeyError, ValueError):
            raise ValueError(f"room: expected {_EXPECTED}, got {_redacted(url)!r}") from None
        if not is_server or parts.username is not None:
            raise ValueError(f"room: expected {_EXPECTED}, got {_redacted(url)!r}")
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        for parameter in parameters:
            if parameter not in PARAMETERS[kind]:
                raise ValueError(f"room: expected parameters of {PARAMETERS[kind]}, got {parameter!r}")
        prefix, _, name = parts.path.rpartition("/")
        name = unquote(name)
        if not name or not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
            raise ValueError(f"room: expected a name of at most {_LONGEST_NAME} bytes at the end of its URL")
        return cls(kind, name, f"{parts.scheme.partition('+')[2]}://{parts.netloc}{prefix}", parameters)

    def with_defaults(self, parameters: Mapping[str, str]) -> "Place":
        """The same, with what its URL does not tell; but a token stands for itself."""
        more = {name: value for name, value in parameters.items() if value and name in PARAMETERS[self.kind]}
        if self.kind == "livekit" and "token" in self.parameters:
            more = {}
        return replace(self, parameters={**more, **self.parameters})


def place_url(server: str, name: str) -> str:
    """The URL of the room called `name`, at a server that is named like a room, but for that: `local:` is one."""
    if server == "local:":
        return server + name
    base, separator, query = server.partition("?")
    return f"{base.rstrip('/')}/{quote(name, safe='')}{separator}{query}"


def check_server(server: str) -> Kind:
    """The kind of rooms that are at a server, named as for `place_url`.

    Raises:
        ValueError: It names none.
    """
    return Place.parse(place_url(server, "room")).kind


def check_extra(kind: Kind) -> None:
    """Sees that the libraries are there for rooms of this kind.

    Raises:
        ValueError: They are not.
    """
    needed = ("livekit.api", "livekit.protocol", "websockets") if kind == "livekit" else ("websockets",)
    for library in needed:
        try:
            found = importlib.util.find_spec(library)
        except ImportError:
            found = None
        if found is None:
            raise ValueError(f"room: expected audiomixer[{kind}] to be installed, there is no {library}")


def _redacted(url: str) -> str:
    """A URL without what may be secret."""
    return url.partition("?")[0].rpartition("@")[2]
