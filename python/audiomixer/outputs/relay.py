"""A connection to a server, made by a process of its own, which is killed if it hangs.

The mix is muxed here, and the process sends the bytes on: `relay_process.py` by PyAV, or for SRT, which PyAV's FFmpeg
lacks, the `ffmpeg` program. (PyAV holds the GIL while it connects: here, a server that hangs would hold up everybody.)
"""

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from audiomixer.audio.encoding import Encoding
from audiomixer.outputs.muxer import Format, Muxer
from audiomixer.outputs.picture import Picture
from audiomixer.outputs.queued import Item

_TS_PACKETS: Final = 1316
"""Bytes of seven packets of TS: what SRT sends at a time."""
_NOTHING: Final = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * (_TS_PACKETS // 188)
"""Null packets (ISO 13818-1): ffmpeg connects when there is something to send."""
_CONNECTED: Final = b"Output #0"
"""What either program says then."""
_CHATTER: Final = re.compile(r"\s*(Output|Input|Stream|Metadata|encoder|size=|video:)")
"""What ffmpeg says while all is well."""
_PIPE: Final = 16 * 1024
_LONGEST: Final = 4096
_PATIENCE: Final = 1.0
"""Seconds for a process to end by itself."""


class Relay:
    """One connection.

    Args:
        command: The program, which sends on what it reads from standard input.
        container: What is sent.
        encoding: What the packets are encoded to.
        timeout: Seconds for the connection to be made, and for data to be taken.
        picture: What is to be seen as well.
        first: Bytes to begin with.
        environment: Variables for the program, beside our own.

    Raises:
        OSError: There is no connection.
    """

    def __init__(
        self,
        command: Sequence[str],
        container: Format,
        encoding: Encoding,
        timeout: float,
        *,
        picture: Picture | None = None,
        first: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        reading, writing = os.pipe()
        self._pipe = _Pipe(writing, timeout)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        except BaseException:
            self._pipe.close()
            raise
        finally:
            os.close(reading)
        self._said = b""
        self._settled = threading.Event()
        self._listener = threading.Thread(target=self._listen, args=[self._process.stderr], name="relay", daemon=True)
        self._listener.start()
        try:
            self._pipe.write(first)
            self._wait(timeout)
            self._muxer = Muxer(self._pipe, container, encoding, picture=picture)
        except BaseException:
            self._end()
            raise

    def _listen(self, stderr: IO[bytes]) -> None:
        """Reads what the program says, so that it can go on saying it."""
        with stderr:
            for line in stderr:
                self._said = (self._said + line)[-_LONGEST:]
                if _CONNECTED in line:
                    self._settled.set()
        self._settled.set()

    def _wait(self, timeout: float) -> None:
        if not self._settled.wait(timeout):
            raise TimeoutError("no answer")
        if _CONNECTED not in self._said:
            raise OSError(self._complaint())

    def _complaint(self) -> str:
        """The last thing that it said."""
        lines = self._said.decode(errors="replace").strip().splitlines()
        told = lines[-1].rpartition(": ")[2] if lines else ""
        return told if told and not _CHATTER.match(lines[-1]) else "the connection has ended"

    def write(self, item: Item) -> None:
        """Writes a packet or a payload."""
        try:
            self._muxer.write(item)
        except BrokenPipeError:
            self._listener.join(_PATIENCE)
            raise BrokenPipeError(self._complaint()) from None

    def close(self) -> None:
        """Ends the connection in order."""
        try:
            self._muxer.close()
        finally:
            self._end()

    def _end(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Pipe:
    """A pipe that does not take data for ever is broken."""

    def __init__(self, descriptor: int, timeout: float) -> None:
        self._descriptor: int | None = descriptor
        self._timeout = timeout
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError, AttributeError):
            # No more than is on its way anyhow: what waits is late.
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)

    def write(self, data: bytes) -> int:
        """Writes all of it."""
        left, deadline = memoryview(data), time.monotonic() + self._timeout
        while left and self._descriptor is not None:
            if not self._ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError("it does not take data")
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._descriptor, left) :]
        return len(data)

    def close(self) -> None:
        """Ends it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def relay(
    url: str,
    protocol: Mapping[str, str],
    container: Format,
    encoding: Encoding,
    timeout: float,
    picture: Picture | None = None,
) -> Relay:
    """A connection by PyAV.

    Args:
        url: What FFmpeg has a protocol for.
        protocol: Options of the protocol.
        container: What is sent.
        encoding: What the packets are encoded to.
        timeout: As for `Relay`.
        picture: Likewise.

    Raises:
        OSError: There is none.
    """
    program = str(Path(__file__).with_name("relay_process.py"))
    environment = {"RELAY_URL": url, "RELAY_OPTIONS": json.dumps(dict(protocol))}
    return Relay(
        [sys.executable, "-P", program], container, encoding, timeout, picture=picture, environment=environment
    )


def srt(url: str, container: Format, encoding: Encoding, timeout: float, picture: Picture | None = None) -> Relay:
    """A connection by SRT.

    Args:
        url: `srt://HOST:PORT`, with libsrt's options if any.
        container: MPEG-TS.
        encoding: What the packets are encoded to.
        timeout: As for `Relay`.
        picture: Likewise.

    Raises:
        OSError: There is none, or no `ffmpeg`.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise OSError("SRT needs the ffmpeg program, which is not installed")
    if "pkt_size=" not in url:
        url += f"{'&' if '?' in url else '?'}pkt_size={_TS_PACKETS}"
    reading = ["-probesize", "32", "-f", "data", "-raw_packet_size", str(_TS_PACKETS), "-i", "pipe:0"]
    writing = ["-map", "0", "-c", "copy", "-flush_packets", "1", "-f", "data", url]
    command = [program, "-hide_banner", "-nostats", *reading, *writing]
    return Relay(command, container, encoding, timeout, picture=picture, first=_NOTHING)
