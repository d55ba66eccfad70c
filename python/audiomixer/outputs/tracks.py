"""Recordings of each participant alone, all on the stream's own timeline: put them side by side, and they fit."""

import logging
import queue
import re
import threading
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

import av
import numpy as np
from numpy.typing import NDArray

from audiomixer.encoding import FRAME_SIZE, EncodedPacket, Encoder, Encoding
from audiomixer.outputs.base import OutputError, explain
from audiomixer.outputs.muxer import FILES, Muxer

_ENCODING: Final = Encoding("opus", 64, channels=1)
_SUFFIX: Final = ".mka"
_LIMIT: Final = 500
"""Frames that may wait for a slow disk, 10 s of them; then new ones are dropped, and are silence in the recording."""
_FINISH_TIMEOUT: Final = 10.0
"""Seconds for what is queued to be written in the end."""
_SILENT_PACKET: Final = b"\xf8\xff\xfe"
"""20 ms of silence (RFC 6716: CELT, full band, 20 ms, and an empty frame)."""
_LONGEST: Final = 200
"""Bytes of an identity in a file's name, escaped."""

_log = logging.getLogger(__name__)

_Solos = Mapping[str, NDArray[np.float32]]


class TrackRecorder:
    """Writes `IDENTITY.mka` for each participant: Opus, from the stream's beginning, with silence until it joined.

    Args:
        folder: Where to; it is made if need be.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.dropped = 0
        """Frames that a slow disk lost."""
        self._queue: queue.Queue[tuple[int, _Solos] | None] = queue.Queue(_LIMIT)
        self._tracks: dict[str, _Track | None] = {}
        self._thread = threading.Thread(target=self._run, name="tracks", daemon=True)

    def start(self) -> None:
        """Makes the folder.

        Raises:
            OutputError: It cannot be written to.
        """
        try:
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
            return
        self._thread.join(_FINISH_TIMEOUT)

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                frame, solos = item
                for identity, samples in solos.items():
                    self._write(identity, frame, samples)
        finally:
            for track in self._tracks.values():
                if track:
                    track.close()

    def _write(self, identity: str, frame: int, samples: NDArray[np.float32]) -> None:
        """Writes a frame; a track that fails gets no more, and the others all the same."""
        try:
            track = self._track(identity)
            if track:
                track.write(frame, samples)
            else:
                self.dropped += 1
        except (OSError, av.FFmpegError) as error:
            _log.error("tracks: %s in %s failed: %s", identity, self.folder, explain(error))
            self._tracks[identity] = None

    def _track(self, identity: str) -> "_Track | None":
        """The participant's track; None if it has failed."""
        track = self._tracks.get(identity)
        if identity not in self._tracks:
            track = self._tracks[identity] = _Track(self.folder / f"{file_stem(identity)}{_SUFFIX}")
        return track


def file_stem(identity: str) -> str:
    """An identity as a file's name."""
    name = re.sub(r"^\.", "%2E", quote(identity, safe=" "))
    return name if len(name) <= _LONGEST else name[:_LONGEST] + "-" + sha256(identity.encode()).hexdigest()[:8]


class _Track:
    """One file, in which a frame follows each other, silence where there was none."""

    def __init__(self, path: Path) -> None:
        self._muxer = Muxer(str(path), FILES[_SUFFIX], _ENCODING)
        self._encoder: Encoder | None = None
        self._frames = 0
        """Frames written."""

    def write(self, frame: int, samples: NDArray[np.float32]) -> None:
        """Writes a frame, after silence up to it."""
        if frame > self._frames:
            self._encoder = None
        while self._frames < frame:
            self._muxer.write(EncodedPacket(_SILENT_PACKET, self._frames * FRAME_SIZE, FRAME_SIZE))
            self._frames += 1
        if self._encoder is None:
            self._encoder = Encoder(_ENCODING, frame * FRAME_SIZE)
        for packet in self._encoder.encode(samples[:, None]):
            self._muxer.write(EncodedPacket(packet.data, self._frames * FRAME_SIZE, FRAME_SIZE))
            self._frames += 1

    def close(self) -> None:
        """Ends the file."""
        self._muxer.close()
