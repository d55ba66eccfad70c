"""SRT, which PyAV's FFmpeg lacks: the `ffmpeg` program sends the MPEG-TS that is muxed here, byte for byte."""

import contextlib
import os
import select
import shutil
import subprocess
import threading
import time
from typing import IO, Final

from audiomixer.encoding import Encoding
from audiomixer.outputs.muxer import Format, Muxer
from audiomixer.outputs.queued import Item

_PACKETS: Final = 1316
"""Bytes of seven packets of TS: what SRT sends at a time."""
_NOTHING: Final = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * (_PACKETS // 188)
"""Null packets (ISO 13818-1): ffmpeg connects when there is something to send."""
_OPENED: Final = b"Output #0"
"""What ffmpeg says once it is connected."""
_LONGEST: Final = 4096


class SrtProcess:
    """One connection.

    Args:
        url: `srt://HOST:PORT`, with libsrt's options if any.
        container: MPEG-TS.
        encoding: What the packets are encoded to.
        timeout: Seconds for the connection to be made, and for data to be taken.

    Raises:
        OSError: There is no connection, or no `ffmpeg`.
    """

    def __init__(self, url: str, container: Format, encoding: Encoding, timeout: float) -> None:
        program = shutil.which("ffmpeg")
        if program is None:
            raise OSError("SRT needs the ffmpeg program, which is not installed")
        self._timeout = timeout
        command = [
            program,
            "-hide_banner",
            "-nostats",
            "-probesize",
            "32",
            "-f",
            "data",
            "-raw_packet_size",
            str(_PACKETS),
            "-i",
            "pipe:0",
        ]
        command += ["-map", "0", "-c", "copy", "-flush_packets", "1", "-f", "data", _with_size(url)]
        reading, self._stdin = os.pipe()
        with open(reading, "rb") as stdin:  # noqa: PTH123
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        os.set_blocking(self._stdin, False)
        self._said = b""
        self._opened = threading.Event()
        threading.Thread(target=self._listen, args=[self._process.stderr], name="srt", daemon=True).start()
        try:
            pipe = _Pipe(self._stdin, timeout)
            pipe.write(_NOTHING)
            self._wait()
            self._muxer = Muxer(pipe, container, encoding)
        except BaseException:
            self._end()
            raise

    def _listen(self, stderr: IO[bytes]) -> None:
        """Reads what ffmpeg says, so that it can go on saying it."""
        with stderr:
            for line in stderr:
                self._said = (self._said + line)[-_LONGEST:]
                if _OPENED in line:
                    self._opened.set()
        self._opened.set()

    def _wait(self) -> None:
        opened = self._opened.wait(self._timeout)
        if not opened or _OPENED not in self._said:
            raise OSError(self._complaint() if opened else "no answer")

    def _complaint(self) -> str:
        lines = self._said.decode(errors="replace").strip().splitlines()
        return lines[-1].rpartition(": ")[2] if lines else "ffmpeg has ended"

    def write(self, item: Item) -> None:
        """Writes a packet or a payload."""
        self._muxer.write(item)

    def close(self) -> None:
        """Ends the connection in order."""
        try:
            self._muxer.close()
        finally:
            self._end()

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._stdin)
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Pipe:
    """A pipe that does not take data for ever is broken."""

    def __init__(self, descriptor: int, timeout: float) -> None:
        self._descriptor = descriptor
        self._timeout = timeout

    def write(self, data: bytes) -> int:
        """Writes all of it."""
        left, deadline = memoryview(data), time.monotonic() + self._timeout
        while left:
            if not select.select([], [self._descriptor], [], max(0.0, deadline - time.monotonic()))[1]:
                raise TimeoutError("it does not take data")
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._descriptor, left) :]
        return len(data)


def _with_size(url: str) -> str:
    separator = "&" if "?" in url else "?"
    return url if "pkt_size=" in url else f"{url}{separator}pkt_size={_PACKETS}"
