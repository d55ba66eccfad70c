"""The metadata in files of its own: JSON lines, or WebVTT."""

import contextlib
import errno
import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from audiomixer.audio.encoding import EncodedPacket, Encoding
from audiomixer.clock.frame import INTERVAL
from audiomixer.outputs.base import explain
from audiomixer.outputs.file import expect_writable
from audiomixer.outputs.queued import Payload, QueuedOutput

SUFFIXES: Final = (".jsonl", ".vtt")
_LIMIT: Final = 1000


class TextOutput(QueuedOutput):
    """Writes every payload with its time.

    Args:
        path: Ending in .jsonl, for lines of `{"time": 12.5, "metadata": {…}}`, or in .vtt, for cues of half a second.
    """

    active = False
    """No audio is wanted."""

    def __init__(self, path: str) -> None:
        self._is_vtt = path.lower().endswith(".vtt")
        self._lost = False
        super().__init__(path, Encoding("opus", 128), _LIMIT)

    async def start(self) -> None:
        """Sees that the file can be written.

        Raises:
            OutputError: It cannot.
        """
        await expect_writable(self.target)
        await super().start()

    def begin(self, began: datetime) -> None:
        """Times are counted from the beginning of the stream."""

    def write(self, packets: Sequence[EncodedPacket]) -> None:
        """Audio for others may come; it is not wanted."""

    def _run(self) -> None:
        with Path(self.target).open("wb", buffering=0) as file:
            whole, pending = 0, b"WEBVTT\n\n" if self._is_vtt else b""
            for item in self._items():
                if not isinstance(item, Payload):
                    continue
                text = pending + (_cue(item) if self._is_vtt else _line(item)).encode()
                try:
                    if file.write(text) != len(text):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except BrokenPipeError:
                    raise
                except OSError as error:
                    # A full disk may have room again; until then, nothing is left half written.
                    self.dropped += 1
                    with contextlib.suppress(OSError):
                        file.truncate(whole)
                        file.seek(whole)
                    if not self._lost:
                        self._lost = True
                        self._tell("lost", explain(error))
                    continue
                whole, pending = whole + len(text), b""
                self.written += 1
                if self._lost:
                    self._lost = False
                    self._tell("connected")


def _line(payload: Payload) -> str:
    try:
        metadata = json.loads(payload.text)
    except ValueError:
        metadata = payload.text
    return json.dumps({"time": round(payload.time, 3), "metadata": metadata}, ensure_ascii=False) + "\n"


def _cue(payload: Payload) -> str:
    """A cue of the half second of which the payload tells, the one before its time."""
    # A blank line or an arrow would end the text.
    text = "\n".join(line for line in payload.text.splitlines() if line.strip()).replace("-->", "->")
    return f"{_time(max(0.0, payload.time - INTERVAL))} --> {_time(payload.time)}\n{text}\n\n"


def _time(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
