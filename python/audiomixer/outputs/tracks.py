"""Recordings of each participant alone, all on the stream's own timeline: put them side by side, and they fit."""

import contextlib
import logging
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

import av
import numpy as np
from numpy.typing import NDArray

from audiomixer.audio.encoding import EncodedPacket, Encoder, Encoding
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.outputs.base import OutputError, explain
from audiomixer.outputs.muxer import FILES, Muxer
from audiomixer.outputs.spool import Spool

_ENCODING: Final = Encoding("opus", 64, channels=1)
_SUFFIX: Final = ".mka"
_LIMIT: Final = 500
"""Frames that may wait for a slow disk, 10 s of them; then new ones are dropped, and are silence in the recording."""
_FINISH_TIMEOUT: Final = 10.0
"""Seconds for what is queued to be written in the end."""
_SILENT_PACKET: Final = b"\xf8\xff\xfe"
"""20 ms of silence (RFC 6716: CELT, full band, 20 ms, and an empty frame)."""
_SILENT_FRAMES: Final = 6
_LONG_SILENT_PACKET: Final = b"\xfb\x06" + _SILENT_FRAMES * b"\xff\xfe"
"""Six of these frames in one packet, which is the most there may be."""
_BREATH: Final = 250
"""After so many packets of silence, others have the interpreter: who joins after a day is 720,000 behind."""
_OPEN: Final = 200
"""Tracks that are open at once, or as many as people are there; then the one is closed that has had nothing for
longest, and who comes back gets another."""
_MOMENT: Final = 250
"""Frames after which somebody who has had nothing is not there."""
_AGAIN: Final = 250
"""Frames until a track that failed is tried again: the disk may have room by then."""
_LONGEST: Final = 200
"""Bytes of an identity in a file's name, escaped."""

_log = logging.getLogger(__name__)

_Solos = Mapping[str, NDArray[np.float32]]


class TrackRecorder:
    """Writes `IDENTITY.mka` for each participant: Opus, from the stream's beginning, with silence until it joined.

    Where hundreds have come and gone, those who come back after that have `IDENTITY+2.mka` as well, and so on.

    Args:
        folder: Where to; it is made if need be.
        spool: Where that is, if they are to be stored elsewhere.
    """

    def __init__(self, folder: str, spool: Spool | None = None) -> None:
        self.folder = Path(folder)
        self._spool = spool
        self.dropped = 0
        """Frames that a slow disk lost."""
        self.error = ""
        """Why somebody's track cannot be written, just now; empty if all is well."""
        self._abandoned = False
        self._queue: queue.Queue[tuple[int, _Solos] | None] = queue.Queue(_LIMIT)
        self._tracks: dict[str, _Track] = {}
        """Those that are open, the one that has had nothing for longest first."""
        self._failed: dict[str, int] = {}
        """Who is not to be tried again before this frame."""
        self._numbers: Counter[str] = Counter()
        """How many tracks each identity has had."""
        self._thread = threading.Thread(target=self._run, name="tracks", daemon=True)

    def start(self) -> None:
        """Makes the folder.

        Raises:
            OutputError: It cannot be written to.
        """
        try:
            if self._spool is None:
                self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"tracks: cannot write {self.folder}: {explain(error)}") from error
        self._thread.start()

    def write(self, frame: int, solos: _Solos) -> None:
        """Takes what everybody was in the stream's frame of this number."""
        try:
            self._queue.put_nowait((frame, solos))
        except queue.Full:
            self.dropped += 1

    def stop(self) -> None:
        """Waits until everything is written."""
        if not self._thread.is_alive():
            return
        try:
            self._queue.put(None, timeout=_FINISH_TIMEOUT)
        except queue.Full:
            _log.error("tracks in %s were not finished: the disk did not take everything in time", self.folder)
            self._abandoned = True
            return
        self._thread.join(_FINISH_TIMEOUT)

    def _run(self) -> None:
        try:
            while not self._abandoned and (item := self._queue.get()) is not None:
                frame, solos = item
                for identity, samples in solos.items():
                    self._write(identity, frame, samples)
        finally:
            for track in self._tracks.values():
                with contextlib.suppress(OSError, av.FFmpegError):
                    track.close()

    def _write(self, identity: str, frame: int, samples: NDArray[np.float32]) -> None:
        """Writes a frame; a track that fails is tried again in a while, in another file. The others do not notice."""
        if frame < self._failed.get(identity, 0):
            self.dropped += 1
            return
        try:
            self._track(identity, frame).write(frame, samples)
            if self._failed.pop(identity, None) and not self._failed:
                self.error = ""
        except (OSError, av.FFmpegError) as error:
            self.dropped += 1
            if identity not in self._failed:
                _log.error("tracks: %s in %s failed: %s", identity, self.folder, explain(error))
            self._failed[identity] = frame + _AGAIN
            self.error = explain(error)
            failed = self._tracks.pop(identity, None)
            if failed:
                with contextlib.suppress(OSError, av.FFmpegError):
                    failed.close()

    def _track(self, identity: str, frame: int) -> "_Track":
        """The participant's track, for this frame."""
        if identity in self._tracks:
            track = self._tracks.pop(identity)
        else:
            self._close_the_most_silent(frame)
            number = self._numbers[identity]
            if not number or not _is_empty(self._path(identity, number)):
                self._numbers[identity] = number = number + 1
            track = _Track(self._path(identity, number), self._spool)
        self._tracks[identity] = track
        return track

    def _path(self, identity: str, number: int) -> Path:
        # No identity has a plus in its file's name.
        return self.folder / f"{file_stem(identity)}{'' if number == 1 else f'+{number}'}{_SUFFIX}"

    def _close_the_most_silent(self, frame: int) -> None:
        """Keeps files few; whoever was there a moment ago keeps theirs, or all would take turns."""
        while len(self._tracks) >= _OPEN:
            identity, track = next(iter(self._tracks.items()))
            if track.frames >= frame - _MOMENT:
                return
            self._tracks.pop(identity).close()


def _is_empty(path: Path) -> bool:
    """Whether nothing has come into a file, since the disk was full."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def file_stem(identity: str) -> str:
    """An identity as a file's name."""
    name = re.sub(r"^\.", "%2E", quote(identity, safe=" "))
    return name if len(name) <= _LONGEST else name[:_LONGEST] + "-" + sha256(identity.encode()).hexdigest()[:8]


class _Track:
    """One file, in which a frame follows each other, silence where there was none."""

    def __init__(self, path: Path, spool: Spool | None = None) -> None:
        self._path = str(path)
        self._spool = spool
        if spool:
            spool.begin(self._path)
        try:
            self._muxer = Muxer(self._path, FILES[_SUFFIX], _ENCODING)
        except BaseException:
            if spool:
                spool.finish(self._path)
            raise
        self._encoder: Encoder | None = None
        self.frames = 0
        """Written."""

    def write(self, frame: int, samples: NDArray[np.float32]) -> None:
        """Writes a frame, after silence up to it."""
        if self._spool:
            self._spool.check_room()
        if frame > self.frames:
            self._encoder = None
        self._fall_silent_until(frame)
        if self._encoder is None:
            self._encoder = Encoder(_ENCODING, frame * FRAME_SIZE)
        for packet in self._encoder.encode(samples[:, None]):
            self._muxer.write(EncodedPacket(packet.data, self.frames * FRAME_SIZE, FRAME_SIZE))
            self.frames += 1

    def _fall_silent_until(self, frame: int) -> None:
        written = 0
        while self.frames < frame:
            frames = _SILENT_FRAMES if frame - self.frames >= _SILENT_FRAMES else 1
            payload = _SILENT_PACKET if frames == 1 else _LONG_SILENT_PACKET
            self._muxer.write(EncodedPacket(payload, self.frames * FRAME_SIZE, frames * FRAME_SIZE))
            self.frames += frames
            written += 1
            if written % _BREATH == 0:
                time.sleep(0.001)

    def close(self) -> None:
        """Ends the file."""
        try:
            self._muxer.close()
        finally:
            if self._spool:
                self._spool.finish(self._path)
