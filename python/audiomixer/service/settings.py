"""Settings of the service: from the environment, `AUDIOMIXER_*`, and a TOML file."""

import importlib.util
import ipaddress
import json
import os
import re
import secrets
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from audiomixer.auth.playback import PlaybackKey
from audiomixer.auth.tokens import Keyring
from audiomixer.rooms.place import Place, check_extra, check_server, place_url
from audiomixer.webrtc.ice import Ice, IceServer, addresses_of

_CREDENTIALS: Final = "credentials.json"
_OTHERS: Final = {"AUDIOMIXER_CONFIG", "AUDIOMIXER_ROOM", "AUDIOMIXER_SECRET"}
"""Variables that are no settings."""
_ARGUMENTS: Final = {
    "AUDIOMIXER_PORT": ", this is one of the command only: --port",
    "AUDIOMIXER_HOST": ", this is one of the command only: --host",
    "AUDIOMIXER_ICE_PORTS": ": all media takes one port now, AUDIOMIXER_MEDIA_PORT",
}
"""What is taken for one."""
_LINKS: Final = re.compile(r"_SERVICE_(HOST|PORT\w*)=|=(tcp|udp)://|_PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?=")
"""Kubernetes sets these for a Service that is called audiomixer."""
_GENERATED: Final = ("account_sid", "auth_token", "api_key", "api_secret")


def _split(value: Any) -> Any:
    """Lists are given with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _sid(prefix: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(prefix + "[0-9a-f]{32}", value):
            raise ValueError(f"expected {prefix} and 32 lower-case hexadecimal digits")
        return value

    return AfterValidator(check)


Words = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Networks = Annotated[list[ipaddress.IPv4Network | ipaddress.IPv6Network], NoDecode, BeforeValidator(_split)]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Addresses = Annotated[list[Address], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What can be set. Everything has a default; credentials are generated, and kept in `data`, where none are given.

    Raises:
        ValueError: A setting is none; the message begins with its name.
    """

    model_config = SettingsConfigDict(
        env_prefix="AUDIOMIXER_", env_ignore_empty=True, validate_default=False, extra="ignore"
    )

    data: Path = Field(Path("audiomixer-data"), description="folder for the database and generated credentials")
    account_sid: Annotated[str, _sid("AC")] = Field("", description="account: AC and 32 hexadecimal digits")
    auth_token: str = Field(
        "", min_length=32, repr=False, description="the account's secret; signs callbacks and playback URLs"
    )
    api_key: Annotated[str, _sid("SK")] = Field("", description="API key: SK and 32 hexadecimal digits")
    api_secret: str = Field("", min_length=32, repr=False, description="the key's secret; signs access tokens")
    database_url: str = Field(
        "", repr=False, description="sqlite:///FILE or postgresql://…; default: a file in the data folder"
    )
    rooms: str = Field(
        "local:",
        repr=False,
        description="where rooms are: local: is this server; or livekit+ws(s)://HOST, janus+ws(s)://HOST",
    )
    livekit_api_key: str = Field("", description="for rooms of LiveKit, to mint tokens with")
    livekit_api_secret: str = Field("", repr=False, description="the key's secret")
    janus_admin_key: str = Field("", repr=False, description="for rooms of Janus, to create them")
    janus_pin: str = Field("", repr=False, description="of every room of Janus")
    janus_token: str = Field("", repr=False, description="for Janus, if it wants tokens")
    janus_api_secret: str = Field("", repr=False, description="for Janus, if its API has a secret")
    room_creation: bool = Field(True, description="rooms that do not exist are created when somebody joins them")
    engine: Literal["local", "ray"] = Field(
        "local", description="what mixes: local is this process; ray, workers on a Ray cluster"
    )
    ray_address: str = Field(
        "", description="of the Ray cluster; default: one of this machine's own, started if need be"
    )
    workers: int = Field(0, ge=0, description="on each node of the Ray cluster; 0: as many as it has CPUs")
    drain_seconds: float = Field(
        600, ge=0, description="after which rooms on a worker that is drained end, for all to join again elsewhere"
    )
    public_url: str = Field("", description="the service's URL as clients see it; default: that of each request")

    ice_addresses: Addresses = Field(
        default_factory=list, description="addresses to offer for media; default: those of --host"
    )
    ice_announced: Address | None = Field(None, description="public address that a router translates (1:1 NAT)")
    media_port: int | None = Field(
        None, ge=0, le=65535, description="port for media, UDP and TCP, 0 for any; default: the one after --port"
    )
    stun_url: str = Field("", description="stun:HOST[:PORT]")
    turn_url: Words = Field(
        default_factory=list, description="turn(s):HOST[:PORT][?transport=udp|tcp], one for each way to reach it"
    )
    turn_username: str = Field("", description="for the TURN server")
    turn_password: str = Field("", repr=False, description="for the TURN server")
    turn_secret: str = Field(
        "", repr=False, description="what the TURN server shares (use-auth-secret): it is for the clients then"
    )

    allowed_networks: Networks = Field(
        default_factory=list, description="private networks that callbacks and outputs may go to: 10.0.0.0/8,…"
    )
    max_media_processors: int = Field(100, ge=0, description="running at once")
    max_player_streamers: int = Field(1000, ge=0, description="not ended, at once")
    max_rooms: int = Field(1000, ge=0, description="in progress at once")
    max_participants: int = Field(2000, ge=0, description="in all rooms together")
    max_recordings: int = Field(100, ge=0, description="being made at once")
    max_listeners: int = Field(2000, ge=0, description="by WebRTC, of all streams together")
    requests_per_second: float = Field(
        50, gt=0, description="from one address, over time; bursts may be ten times that"
    )
    proxies: Words = Field(default_factory=list, description="addresses of proxies whose X-Forwarded-For is believed")
    recordings: str = Field(
        "",
        description="where recordings are stored: s3://…, gs://…, az://…, or a folder; default: one in the data folder",
    )
    spool: Path | None = Field(
        None, description="folder where recordings wait until they are stored; default: one in the data folder"
    )
    spool_limit: float = Field(
        20, gt=0, description="GiB that may wait there; then nothing is recorded until there is room"
    )
    retention_days: float = Field(90, ge=0, description="for which what has ended is kept; 0: for ever")
    log_format: Literal["json", "text"] = Field("json", description="of the log, on stderr")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments come first, then the environment, then the file that AUDIOMIXER_CONFIG names."""
        file = settings_cls.model_config.get("toml_file") or os.environ.get("AUDIOMIXER_CONFIG")
        return init_settings, env_settings, *([TomlConfigSettingsSource(settings_cls, Path(str(file)))] if file else [])

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        try:
            kind = check_server(self.rooms)
        except ValueError:
            raise ValueError("rooms: expected local:, livekit+ws(s)://HOST or janus+ws(s)://HOST") from None
        if kind != "local":
            check_extra(kind)
        given = self.place("room").parameters if kind == "livekit" else {}
        if kind == "livekit" and "token" not in given and not (given.get("api_key") and given.get("api_secret")):
            raise ValueError("rooms: expected livekit_api_key and livekit_api_secret, for rooms of LiveKit")
        self.public_url = self.public_url.rstrip("/")
        if self.public_url and not re.match(r"https?://[^/]", self.public_url):
            raise ValueError("public_url: expected http(s)://…")
        for name, urls in (("stun_url", [self.stun_url] if self.stun_url else []), ("turn_url", self.turn_url)):
            for url in urls:
                try:
                    given_kind = IceServer.parse(url).kind
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
                if not name.startswith(given_kind):
                    raise ValueError(f"{name}: expected no {given_kind.upper()} server, got {url!r}")
        if self.engine == "ray" and importlib.util.find_spec("ray") is None:
            raise ValueError("engine: expected audiomixer[ray] to be installed, there is no ray")
        if self.turn_secret and self.turn_username:
            raise ValueError("turn_secret: expected no turn_username beside it")
        return self

    def complete(self) -> list[str]:
        """Fills in what was not given: credentials are read from the data folder, or made and kept there.

        Returns:
            The names of the credentials that were made just now.

        Raises:
            ValueError: The data folder cannot be made.
        """
        try:
            self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ValueError(f"data: expected a folder, cannot make {self.data}: {error.strerror}") from None
        if not self.database_url:
            self.database_url = f"sqlite:///{self.data / 'audiomixer.db'}"
        self.recordings = self.recordings or str(self.data / "recordings")
        kept = self._kept()
        made = [name for name in _GENERATED if not getattr(self, name) and name not in kept]
        kept |= {name: _make(name) for name in made}
        if made:
            file = self.data / _CREDENTIALS
            new = file.with_suffix(".new")
            try:
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
                    json.dump(kept, opened, indent=2)
                    opened.flush()
                    os.fsync(opened.fileno())
                new.replace(file)
            except OSError as error:
                raise ValueError(f"data: expected a folder that can be written, {file}: {error.strerror}") from None
        self._take(kept)
        return made

    def read_credentials(self) -> None:
        """Fills in credentials that were not given from the data folder.

        Raises:
            ValueError: Some are not there either.
        """
        self._take(self._kept())
        missing = [name for name in _GENERATED if not getattr(self, name)]
        if missing:
            names = ", ".join(f"AUDIOMIXER_{name.upper()}" for name in missing)
            raise ValueError(f"expected {names}, or {self.data / _CREDENTIALS}, which `audiomixer serve` writes")

    def _kept(self) -> dict[str, str]:
        file = self.data / _CREDENTIALS
        try:
            return dict(json.loads(file.read_text())) if file.exists() else {}
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"data: expected credentials in {file}: {error}") from None

    def _take(self, kept: dict[str, str]) -> None:
        for name in _GENERATED:
            if not getattr(self, name) and name in kept:
                setattr(self, name, kept[name])

    def keyring(self) -> Keyring:
        """What access tokens are signed with."""
        return Keyring({self.api_key: self.api_secret}, self.account_sid)

    def playback_key(self) -> PlaybackKey:
        """What playback URLs are signed with."""
        return PlaybackKey(self.auth_token)

    @property
    def elsewhere(self) -> bool:
        """Whether rooms are on another server."""
        return self.rooms != "local:"

    def place(self, room: str) -> Place:
        """Where the room of this name is, as `rooms` says, with the credentials that are set."""
        return self.with_credentials(Place.parse(place_url(self.rooms, room)))

    def with_credentials(self, place: Place) -> Place:
        """The same place, with the credentials that are set for its kind."""
        names = (name for name in type(self).model_fields if name.startswith(f"{place.kind}_"))
        return place.with_defaults({name.removeprefix(f"{place.kind}_"): getattr(self, name) for name in names})

    def ice(self, host: str) -> Ice:
        """Where connections are offered, by a server that listens on `host`."""
        stun = [IceServer.parse(self.stun_url)] if self.stun_url else []
        own = [IceServer.parse(url, self.turn_username, self.turn_password) for url in self.turn_url]
        theirs = [IceServer.parse(url, secret=self.turn_secret) for url in self.turn_url]
        return Ice(
            [str(address) for address in self.ice_addresses] or addresses_of(host),
            announced=str(self.ice_announced) if self.ice_announced else None,
            media_port=self.media_port or 0,
            servers=[*stun, *([] if self.turn_secret else own)],
            offered=[*stun, *(theirs if self.turn_secret else [])],
        )


def load(config: Path | None = None, **given: Any) -> Settings:
    """Settings from the arguments, the environment, and a TOML file: `config`, or what AUDIOMIXER_CONFIG names.

    Raises:
        ValueError: A setting is none; the message begins with its name, and holds no secret.
    """
    check_environment()
    file = config or os.environ.get("AUDIOMIXER_CONFIG")
    if file:
        _check_names(Path(file))

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return Configured(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"][:1])
        problem = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{name}: {problem}" if name else problem) from None


def check_environment() -> None:
    """Sees that nothing is misspelt there.

    Raises:
        ValueError: A variable of ours is no setting; says which is near.
    """
    names = {f"AUDIOMIXER_{name.upper()}" for name in Settings.model_fields} | _OTHERS
    for given, value in os.environ.items():
        if given.startswith("AUDIOMIXER_") and given not in names and not _LINKS.search(f"{given}={value}"):
            near = get_close_matches(given, sorted(names), 1)
            hint = f": {near[0]}?" if near else ", there is none of this name"
            raise ValueError(f"{given}: expected a setting{_ARGUMENTS.get(given, hint)}")


def _check_names(file: Path) -> None:
    """Sees that a file has settings in it, and nothing else."""
    try:
        names = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"config: expected a file of TOML, {file}: {error}") from None
    for name in names:
        if name not in Settings.model_fields:
            others = f", one of {', '.join(Settings.model_fields)}"
            hint = _ARGUMENTS.get(f"AUDIOMIXER_{name.upper()}", others)
            raise ValueError(f"config: {name}: expected a setting{hint}")


def help_text() -> str:
    """A line per setting, for `--help`."""
    lines = []
    for name, field in Settings.model_fields.items():
        told = "default" in (field.description or "") or field.default in ("", None, PydanticUndefined)
        default = "" if told else f"; default: {str(field.default).lower() if field.default is True else field.default}"
        lines.append(f"AUDIOMIXER_{name.upper()}: {field.description}{default}")
    return "\n\n".join(lines)


def _make(name: str) -> str:
    prefix = {"account_sid": "AC", "api_key": "SK"}.get(name, "")
    return prefix + secrets.token_hex(16)
