"""The command `audiomixer`."""

import asyncio
import contextlib
import functools
import gc
import importlib.metadata
import ipaddress
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Final, Literal
from urllib.parse import quote

import typer
import uvloop
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from starlette.responses import JSONResponse

from audiomixer.audio.loudness import LOUDEST_TARGET, QUIETEST_TARGET
from audiomixer.audio.metadata import TimedMetadata
from audiomixer.auth.tokens import Keyring, mint
from audiomixer.clock.tasks import spawn
from audiomixer.mixer import IDENTITY, AudioMixer
from audiomixer.outputs.base import NamedOutput, OutputError
from audiomixer.outputs.bucket import SCHEMES as BUCKETS
from audiomixer.outputs.bucket import Bucket, split
from audiomixer.outputs.file import check_writable
from audiomixer.outputs.muxer import FILES
from audiomixer.outputs.text import SUFFIXES
from audiomixer.rooms.base import RoomError
from audiomixer.rooms.local import LocalRooms, OpenDoor
from audiomixer.rooms.names import check_name
from audiomixer.rooms.place import Place
from audiomixer.service import logs, settings
from audiomixer.service.demo import ROOM, demo
from audiomixer.service.http.endpoints import media_app
from audiomixer.service.http.errors import error_response
from audiomixer.service.http.server import PortError, allow_many_files, serving, stop_signals
from audiomixer.service.jobs import WorkerState
from audiomixer.service.streams import Streams
from audiomixer.webrtc.ice import Ice, addresses_of

app = typer.Typer(
    help="Mixes the people in a WebRTC room into one live stream.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_METER_FLOOR: Final = -60.0
"""dBFS at the left end of a meter."""
_METER_WIDTH: Final = 30

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any.")]
_MEDIA_PORT: Final = "Port for media, UDP and TCP; 0 for any."
MediaPort = Annotated[int, typer.Option(min=0, max=65535, envvar="AUDIOMIXER_MEDIA_PORT", help=_MEDIA_PORT)]
TlsCert = Annotated[
    Path | None,
    typer.Option(help="Certificate, PEM, to serve HTTPS: browsers on other machines give their microphone only then."),
]
TlsKey = Annotated[Path | None, typer.Option(help="The certificate's key, PEM.")]
Duration = Annotated[float | None, typer.Option(min=0.0, help="Stop after so many seconds.")]
Bitrate = Annotated[Literal["128", "192"], typer.Option(help="Bitrate of the mix in kbit/s.")]
Secret = Annotated[
    str | None,
    typer.Option(envvar="AUDIOMIXER_SECRET", help="Who joins needs an access token signed with this."),
]


def _command(run: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes a command of a coroutine function: what the user can mend is told in a line, with exit code 2.

    What was imported is kept from the garbage collector, which would stop all threads for 60 ms to go through it.
    """

    @functools.wraps(run)
    def command(*args: Any, **kwargs: Any) -> None:
        gc.collect()
        gc.freeze()
        allow_many_files()
        try:
            uvloop.run(run(*args, **kwargs))
        except (ValueError, PortError, RoomError, OutputError) as error:
            typer.echo(f"audiomixer: {error}", err=True)
            raise typer.Exit(2) from None

    return command


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("audiomixer"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Mixes the people in a WebRTC room into one live stream."""


@app.command("demo")
@_command
async def demo_command(
    port: Port = 8080,
    host: Host = "127.0.0.1",
    duration: Duration = None,
    audio_bitrate: Bitrate = "128",
    json: Annotated[bool, typer.Option("--json", help="Print the timed metadata, a payload a line.")] = False,
    media_port: MediaPort = 0,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """A room of three speakers, mixed and playable at once."""
    settings.check_environment()
    ice = Ice(addresses_of(host), media_port=media_port)
    streams = Streams(LocalRooms(ice))
    async with serving(media_app(streams), host, port, tls=_tls(tls_cert, tls_key)) as url:
        try:
            ice.open()
            with stop_signals() as stop:
                async with demo(streams, url, int(audio_bitrate)) as stream:
                    lines = [
                        f"Listen   {url}/listen/{stream.sid}",
                        f"Talk     {url}/rooms/{ROOM}",
                        f"HLS      {url}/hls/{stream.sid}/index.m3u8",
                        f"Media    port {ice.port}, UDP and TCP",
                        "Open to all who can reach this address, without tokens. Stop with Ctrl-C.",
                    ]
                    with contextlib.ExitStack() as shown:
                        show = _print_json(sys.stdout, stop.set) if json else shown.enter_context(_meters(lines))
                        await _follow(stream.mixer, show, duration, stop)
        finally:
            await streams.close()


@app.command("mix")
@_command
async def mix_command(
    room: Annotated[
        list[str],
        typer.Option(
            envvar="AUDIOMIXER_ROOM",
            help="Room to mix: local:NAME, which is hosted here, livekit+ws(s)://HOST/ROOM or "
            "janus+ws(s)://HOST/ROOM. Credentials are in its query (?token=…), or the environment, as for the service.",
        ),
    ],
    output: Annotated[
        list[str] | None,
        typer.Option(
            help="File (*.m4a|.mp3|.ogg|.wav|.mka, *.jsonl|.vtt for the metadata), directory ending in / for HLS, or "
            "URL (rtmp(s)://, srt://, icecast://, whip+http(s)://); may be given again."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over recordings that are there.")] = False,
    create: Annotated[
        bool, typer.Option(help="Make a room elsewhere that is not there; Janus keeps it for good.")
    ] = True,
    identity: Annotated[
        str, typer.Option(help="The mixer's identity, in rooms that show it: Janus's, and LiveKit's with --publish.")
    ] = IDENTITY,
    audio_bitrate: Bitrate = "128",
    duration: Duration = None,
    level: Annotated[bool, typer.Option("--level", help="Bring speakers to one loudness.")] = False,
    max_speakers: Annotated[
        int | None, typer.Option(min=1, help="Mix at most so many at once, the loudest; all if absent.")
    ] = None,
    denoise: Annotated[bool, typer.Option("--denoise", help="Take noise off speakers; 10 ms later.")] = False,
    loudness: Annotated[
        float | None,
        typer.Option(min=QUIETEST_TARGET, max=LOUDEST_TARGET, help="Bring the mix to so many LUFS, -16 say."),
    ] = None,
    rotate: Annotated[
        float | None, typer.Option(min=1, help="Begin a new recording every so many seconds, named by its time.")
    ] = None,
    tracks: Annotated[
        str | None, typer.Option(help="Folder for recordings of each participant alone, on the same timeline.")
    ] = None,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Publish the mix in its room of LiveKit, and the metadata as data."),
    ] = False,
    metadata: Annotated[
        str | None, typer.Option(help="File for the timed metadata, a payload a line; - is stdout.")
    ] = None,
    port: Port = 8080,
    host: Host = "127.0.0.1",
    media_port: MediaPort = 0,
    secret: Secret = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Mixes a room into files, and to servers."""
    if len(room) != 1:
        raise ValueError(f"room: expected one, got {len(room)}")
    if not overwrite:
        _check_absent(output or [], metadata, rotate, tracks)
        await _check_not_stored(output or [], rotate)
    ice = Ice(addresses_of(host), media_port=media_port)
    rooms = LocalRooms(ice, OpenDoor(Keyring({"": secret}) if secret else None))
    chosen = _load(None, None)
    place = chosen.with_credentials(Place.parse(room[0]))
    mixer = AudioMixer(
        place,
        outputs=output or [],
        audio_bitrate=int(audio_bitrate),
        identity=identity,
        leveler=level,
        max_speakers=max_speakers,
        denoise=denoise,
        loudness=loudness,
        rotate=rotate,
        tracks=tracks,
        publish=publish,
        create=create,
        rooms=rooms,
        ice=None if place.kind == "local" else chosen.ice("0.0.0.0"),  # noqa: S104
    )
    _check_metadata(metadata)
    hosted = (
        _hosting(rooms, host, port, _tls(tls_cert, tls_key)) if place.kind == "local" else contextlib.nullcontext("")
    )
    async with hosted as url:
        with stop_signals() as stop, contextlib.ExitStack() as files:
            # What they say is told as events.
            for told_as_events in ("queued", "directory", "whip"):
                logging.getLogger(f"audiomixer.outputs.{told_as_events}").setLevel(logging.CRITICAL)
            told = [spawn(_tell_events(mixer)), spawn(_tell_room_events(mixer))]
            async with mixer:
                records = bool(output or tracks or publish)
                # Whose only reader has gone has nothing left to do.
                unread = stop.set if metadata == "-" and not records else None
                show = _print_json(files.enter_context(_open(metadata)), unread) if metadata else _ignore
                where = f"Talk at {url}/rooms/{quote(place.name)}" if url else f"Mixing {place.name}"
                media = f", media by port {rooms.ice.port}, UDP and TCP" if url else ""
                typer.echo(f"{where}{media}; stop with Ctrl-C.", err=True)
                if url and secret:
                    told_how = f"audiomixer token --identity NAME --room {shlex.quote(place.name)}"
                    typer.echo(f"Who talks needs a token, at the end of the link, #token=…: {told_how}", err=True)
                if not records and metadata in {None, "-"}:
                    typer.echo("Nothing is recorded: there is no --output.", err=True)
                await _follow(mixer, show, duration, stop)
            await asyncio.gather(*told)
    for written in mixer.outputs:
        if isinstance(written, NamedOutput):
            if written.error:
                raise OutputError(f"output: {written.name} stopped: {written.error}")
            if written.written:
                names = getattr(written, "files", None) or [written.name]
                typer.echo(f"Wrote {mixer.time:.1f} s to {', '.join(names)}", err=True)


@contextlib.asynccontextmanager
async def _hosting(rooms: LocalRooms, host: str, port: int, tls: tuple[Path, Path] | None) -> AsyncIterator[str]:
    """Serves local rooms; gives the URL."""
    streams = Streams(rooms)
    async with serving(media_app(streams), host, port, tls=tls) as url:
        try:
            rooms.ice.open()
            yield url
        finally:
            await streams.close()


async def _tell_room_events(mixer: AudioMixer) -> None:
    """Tells when a room elsewhere is lost, joined again, or over, and of what cannot be mixed."""
    lost = False
    async for event in mixer.room_events():
        lost |= event.what == "reconnecting"
        if event.what in {"reconnecting", "ended", "skipped", "refused"} or (event.what == "joined" and lost):
            about = f" {event.identity}" if event.identity else ""
            typer.echo(f"room{about}: {event.what}" + (f": {event.reason}" if event.reason else ""), err=True)


async def _tell_events(mixer: AudioMixer) -> None:
    """Tells of outputs that are lost, and back."""
    async for event in mixer.output_events():
        typer.echo(f"output {event.name}: {event.state}" + (f": {event.reason}" if event.reason else ""), err=True)


@app.command("serve", epilog=settings.help_text())
@_command
async def serve_command(
    host: Host = "127.0.0.1",
    port: Port = 8080,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder for the database and generated credentials.", show_default="audiomixer-data"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="AUDIOMIXER_CONFIG", help="TOML file with settings, by their names below.")
    ] = None,
    media_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=_MEDIA_PORT, show_default="the one after --port")
    ] = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Runs the service: the REST API, rooms, streams and players.

    It is set by the environment, or by the same names in lower case, without the prefix, in the file:
    """
    from audiomixer.service.http.app import create_app

    chosen = _load(data, config, media_port)
    if chosen.media_port is None:
        # The last has none after it.
        chosen.media_port = port + 1 if 0 < port < 65535 else 0
    logs.set_up(chosen.log_format)
    held = _Held()
    with stop_signals() as stop:
        # The port first: whoever cannot have it has changed nothing.
        tls = _tls(tls_cert, tls_key)
        async with serving(held, host, port, on_stop=held.close, tls=tls, proxies=chosen.proxies) as url:
            made = chosen.complete()
            if made:
                typer.echo(f"These credentials were made just now, and are kept in {chosen.data}/credentials.json:")
                for name in made:
                    typer.echo(f"  {name:<12} {getattr(chosen, name)}")
            held.app = create_app(chosen, host)
            service = held.app.state.service
            await service.start()
            held.app.state.streams = service.streams
            public = f" as {chosen.public_url}" if chosen.public_url else ""
            for where, ports in _media(service.engine.workers()).items():
                typer.echo(f"Media comes by port {ports}, UDP and TCP, of {where}.")
            typer.echo(f"Serving {url}{public}; stop with Ctrl-C.")
            _warn_of_loopback(chosen, service.ice, host, tls=tls_cert is not None)
            sys.stdout.flush()
            ends = [asyncio.create_task(event.wait()) for event in (stop, service.taken)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            if service.taken.is_set():
                raise ValueError("database_url: another audiomixer has taken this database")


def _media(workers: list[WorkerState]) -> dict[str, str]:
    """The media ports, by the addresses where they are."""
    ports: dict[str, list[int]] = {}
    for worker in workers:
        if worker.media_port:
            ports.setdefault(", ".join(worker.addresses), []).append(worker.media_port)
    return {where: ", ".join(map(str, sorted(many))) for where, many in ports.items()}


class _Held:
    """An application that is there as soon as it has been made; until then, only that the process is alive is told."""

    def __init__(self) -> None:
        self.app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.app is not None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/healthz":
            await JSONResponse({"status": "ok"})(scope, receive, send)
        elif scope["type"] == "http":
            await error_response(503, "The service is starting", 20503, {"Retry-After": "1"})(scope, receive, send)

    async def close(self) -> None:
        """Closes the service behind it."""
        if self.app is not None:
            await self.app.state.service.close()


def _tls(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if (certificate is None) != (key is None):
        raise ValueError("tls: expected both --tls-cert and --tls-key")
    for option, file in (("tls-cert", certificate), ("tls-key", key)):
        if file and not os.access(file, os.R_OK):
            raise ValueError(f"{option}: expected a file that can be read, got {file}")
    return (certificate, key) if certificate and key else None


def _warn_of_loopback(chosen: settings.Settings, ice: Ice, host: str, *, tls: bool) -> None:
    """Tells of what works on this machine only, before somebody wonders."""
    local = host in {"localhost", "::1"} or host.startswith("127.")
    media_is_local = all(ipaddress.ip_address(address).is_loopback for address in ice.addresses) and not ice.announced
    if chosen.public_url and media_is_local:
        typer.echo(
            "Media is offered on this machine only: for others, set AUDIOMIXER_ICE_ADDRESSES, or --host.", err=True
        )
    if not tls and not chosen.public_url.startswith("https:") and not (local and not chosen.public_url):
        typer.echo(
            "Browsers on other machines give their microphone to https only: set --tls-cert and --tls-key,"
            " or have a proxy in front.",
            err=True,
        )


async def _check_not_stored(outputs: list[str], rotate: float | None) -> None:
    """Refuses to write over objects in buckets."""
    for output in outputs:
        if output.partition("://")[0] in BUCKETS and not output.endswith("/") and rotate is None:
            place, name = split(output)
            try:
                is_there = await Bucket(place).has(name)
            except OutputError as error:
                raise ValueError(f"output: {error}") from error
            if is_there:
                raise ValueError(f"output: {output} is there already: --overwrite replaces it, --rotate begins another")


def _check_absent(outputs: list[str], metadata: str | None, rotate: float | None, tracks: str | None) -> None:
    """Refuses to write over what somebody may miss."""
    for output in outputs:
        suffix = Path(output).suffix.lower()
        rotates = rotate is not None and suffix in FILES
        if "://" not in output and suffix in {*FILES, *SUFFIXES} and not rotates and _is_full(output):
            other = ", --rotate begins another" if suffix in FILES else ""
            raise ValueError(f"output: {output} is there already: --overwrite replaces it{other}")
    if metadata and metadata != "-" and _is_full(metadata):
        raise ValueError(f"metadata: {metadata} is there already: --overwrite replaces it")
    if tracks and Path(tracks).is_dir() and any(Path(tracks).glob("*.mka")):
        raise ValueError(f"tracks: there are recordings in {tracks} already: --overwrite replaces them")


def _is_full(path: str) -> bool:
    return Path(path).is_file() and Path(path).stat().st_size > 0


def _load(data: Path | None, config: Path | None, media_port: int | None = None) -> settings.Settings:
    given = {"data": data, "media_port": media_port}
    return settings.load(config, **{name: value for name, value in given.items() if value is not None})


@app.command("token")
@_command
async def token_command(
    identity: Annotated[str, typer.Option(help="Who may join, or listen.")],
    room: Annotated[str | None, typer.Option(help="The room's name; any if absent.")] = None,
    play: Annotated[
        str | None, typer.Option(help="SID of a PlayerStreamer to listen to, instead of a room to join.")
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="A host's: for the room's console as well.")] = False,
    url: Annotated[str, typer.Option(help="The service's URL, for tokens to listen.")] = "http://127.0.0.1:8080",
    ttl: Annotated[
        float, typer.Option(min=1, help="Seconds until the token expires; for one to listen, until listening starts.")
    ] = 3600,
    secret: Annotated[
        str | None,
        typer.Option(envvar="AUDIOMIXER_SECRET", help="Of `mix --secret`; else the service's API key is used."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The service's folder.", show_default="audiomixer-data")] = None,
    config: Annotated[Path | None, typer.Option(envvar="AUDIOMIXER_CONFIG", help="The service's settings.")] = None,
) -> None:
    """Prints an access token, to join a room or to listen to a stream."""
    if play and (room or not re.fullmatch("VJ[0-9a-f]{32}", play)):
        raise ValueError("play: expected the SID of a PlayerStreamer, and no room beside it")
    if host and (play or secret):
        raise ValueError("host: expected a room of the service, and no --play or --secret")
    if secret and play:
        raise ValueError("play: expected no --secret or AUDIOMIXER_SECRET: only the service's own key lets listen")
    if secret:
        if room:
            check_name(room)
        typer.echo(mint(secret, identity, room, ttl=ttl))
        return
    chosen = _load(data, config)
    chosen.read_credentials()
    player = None
    if play:
        signed = chosen.playback_key().grant(play, ttl)
        player = {
            "playbackUrl": f"{chosen.public_url or url}/hls/{play}/index.m3u8?token={signed}",
            "playerStreamerSid": play,
            "requestCredentials": None,
        }
    key, account = chosen.api_key, chosen.account_sid
    typer.echo(
        mint(chosen.api_secret, identity, room, ttl=ttl, issuer=key, account_sid=account, player=player, host=host)
    )


@app.command("drain")
@_command
async def drain_command(
    node: Annotated[str, typer.Argument(help="A worker's name, or the address of its machine.")],
    back: Annotated[bool, typer.Option("--back", help="Take it back.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing is left on it.")] = False,
    url: Annotated[str, typer.Option(help="The service's URL.")] = "http://127.0.0.1:8080",
    data: Annotated[Path | None, typer.Option(help="The service's folder.", show_default="audiomixer-data")] = None,
    config: Annotated[Path | None, typer.Option(envvar="AUDIOMIXER_CONFIG", help="The service's settings.")] = None,
) -> None:
    """Has workers of a cluster get nothing new; what they have goes on on others."""
    from audiomixer.service.operating import drain

    chosen = _load(data, config)
    chosen.read_credentials()
    await drain(url, (chosen.account_sid, chosen.auth_token), node, back=back, wait=wait, say=typer.echo)


Show = Callable[[TimedMetadata], None]


async def _follow(mixer: AudioMixer, show: Show, duration: float | None, stop: asyncio.Event) -> None:
    """Shows payloads until the stream has lasted `duration` seconds or `stop` is set, and stops the mixer."""

    async def follow() -> None:
        async for payload in payloads:
            show(payload)

    async def last() -> None:
        while duration is None or mixer.time < duration:
            await asyncio.sleep(1.0 if duration is None else max(0.005, duration - mixer.time))

    payloads = mixer.timed_metadata()
    following = asyncio.create_task(follow())
    ends = [asyncio.create_task(last()), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait([following, *ends], return_when=asyncio.FIRST_COMPLETED)
        await mixer.stop()
        await following
    finally:
        for task in (following, *ends):
            task.cancel()
        await asyncio.gather(following, *ends, return_exceptions=True)


def _ignore(payload: TimedMetadata) -> None:
    pass


def _print_json(file: IO[str], unread: Callable[[], None] | None = None) -> Show:
    """Prints payloads, while they can be written; then `unread` is called, or the mix goes on without them."""
    is_read = True

    def show(payload: TimedMetadata) -> None:
        nonlocal is_read
        if not is_read:
            return
        try:
            print(payload.to_json(), file=file, flush=True)
        except OSError as error:
            is_read = False
            # Whoever read it (`head`) has enough, or the disk is full; Python would complain at the end once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
            then = "ends" if unread else "goes on"
            typer.echo(f"metadata: it cannot be written any more, {error.strerror}; the mix {then}.", err=True)
            if unread:
                unread()

    return show


def _check_metadata(target: str | None) -> None:
    if target is None or target == "-":
        return
    try:
        check_writable(target)
    except OSError as error:
        raise ValueError(f"metadata: cannot write {target}: {error.strerror}") from None


def _open(target: str) -> contextlib.AbstractContextManager[IO[str]]:
    return contextlib.nullcontext(sys.stdout) if target == "-" else Path(target).open("w", encoding="utf-8")


@contextlib.contextmanager
def _meters(lines: list[str]) -> Iterator[Show]:
    """Live meters in the terminal, below `lines`."""
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    with Live(console=console, refresh_per_second=4) as live:
        yield lambda payload: live.update(_table(payload))


def _table(payload: TimedMetadata) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for identity, volume in sorted(payload.p.items()):
        name = escape(identity)
        if volume.v < 0:
            table.add_row(name, "", "[yellow]muted[/]")
            continue
        decibels = max(_METER_FLOOR, 20 * math.log10(max(volume.v, 1) / 32767))
        filled = round(_METER_WIDTH * (1 - decibels / _METER_FLOOR))
        bar = f"[green]{'█' * filled}[/][dim]{'·' * (_METER_WIDTH - filled)}[/]"
        table.add_row(name, bar, f"{decibels:.0f} dBFS" if filled else "silent")
    table.add_row("[dim]stream[/]", f"[dim]{payload.time:.1f} s[/]", "")
    return table
