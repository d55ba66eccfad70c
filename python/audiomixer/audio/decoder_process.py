"""Decodes a file, a URL or standard input to samples on standard output; run as a program by `decoder.py`.

What it is told comes by the environment: arguments can be read by everybody on the machine, and a URL may hold a key.
"""

import errno
import json
import os
import resource
import select
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any, cast

import av
import numpy as np
from numpy.typing import NDArray

RATE = 48_000
_KEPT = 256 << 20
"""Bytes of standard input that are kept to be read again; it ends there."""
_IN_MEMORY = 8 << 20
_CHUNK = 65536
_HASTY = {"probesize": "65536", "analyzeduration": "200000"}
"""FFmpeg is not to read megabytes, which may take long to come, to make sure of what it has found."""
_DAMAGED = 100
"""Packets that may be, of one file."""
_MEMORY = 2 << 30
"""Bytes that whatever is in a file may have this process take."""
_AT_ONCE = 0.1
"""Seconds for standard input to come to its end: what is short is known as a whole before it begins."""


class Kept:
    """Standard input, kept as it comes: it can be read again, and from anywhere."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - as long as the process
        self._size = 0
        self._position = 0
        self._ended = False

    def is_whole_by(self, deadline: float) -> bool:
        """Whether it has come to its end by then, at a time of `time.monotonic()`."""
        while not self._ended and select.select([0], [], [], max(0.0, deadline - time.monotonic()))[0]:
            self._fill(self._size + 1)
        return self._ended

    def _fill(self, size: int) -> None:
        self._file.seek(self._size)
        while not self._ended and self._size < size:
            if self._size >= _KEPT:
                raise OSError(errno.EFBIG, f"it is longer than {_KEPT >> 20} MiB")
            data = os.read(0, min(_CHUNK, _KEPT - self._size))
            self._ended = not data
            self._size += self._file.write(data)

    def read(self, size: int) -> bytes:
        """So many bytes, or what there is."""
        self._fill(self._position + 1)
        self._file.seek(self._position)
        data = self._file.read(min(size, self._size - self._position))
        self._position += len(data)
        return data

    def tell(self) -> int:
        """Where it is."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes on elsewhere."""
        if whence == os.SEEK_END:
            self._fill(sys.maxsize)
            offset += self._size
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = max(0, offset)
        return self._position


class Coming:
    """The same from its beginning on, as what cannot be read from anywhere: nothing waits for its end."""

    def __init__(self, kept: Kept) -> None:
        kept.seek(0)
        self.read = kept.read


class Input:
    """What is decoded, from its beginning as often as it is opened."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        self._url = url
        self._options = options
        self._kept = Kept() if url == "-" else None
        self._is_whole = self._kept is None or self._kept.is_whole_by(time.monotonic() + _AT_ONCE)

    def open(self) -> av.container.InputContainer:
        """Opens it."""
        if self._is_whole or self._kept is None:
            return self._opened(self._kept or self._url)
        try:
            return self._opened(Coming(self._kept), _HASTY)
        except av.FFmpegError:
            # What has to be known first may be at its end.
            self._is_whole = True
            return self._opened(self._kept)

    def _opened(self, file: Any, options: dict[str, str] | None = None) -> av.container.InputContainer:
        if self._kept:
            self._kept.seek(0)
        return cast("av.container.InputContainer", av.open(file, "r", options={**self._options, **(options or {})}))


def samples(container: av.container.InputContainer, start: float) -> Iterator[bytes]:
    """The audio from `start` seconds on: float32, stereo, 48 kHz."""
    stream = container.streams.audio[0]
    # FFmpeg would have mono be quieter on two sides.
    channels = min(stream.codec_context.channels, 2)
    layout = "stereo" if channels == 2 else "mono"
    resampler, form, left_out = av.AudioResampler("flt", layout, RATE), None, 0
    for frame in frames(container, stream):
        if form not in {None, (frame.format.name, frame.layout.name, frame.sample_rate)}:
            resampler = av.AudioResampler("flt", layout, RATE)
        form = frame.format.name, frame.layout.name, frame.sample_rate
        time_of = frame.time or 0.0
        if start and not left_out and time_of + frame.samples / frame.sample_rate <= start:
            continue
        skip = max(0, round((start - time_of) * RATE)) if start and not left_out else 0
        left_out = 1
        for piece in resampler.resample(frame):
            yield both(piece, channels)[skip:].tobytes()
            skip = 0
    for piece in resampler.resample(None):
        yield both(piece, channels).tobytes()


def frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """What can be decoded; damaged packets are left out, a few."""
    damaged = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            damaged += 1
            if damaged > _DAMAGED:
                raise


def both(frame: av.AudioFrame, channels: int) -> NDArray[np.float32]:
    """The samples of both sides."""
    return np.repeat(frame.to_ndarray().reshape(-1, channels), 3 - channels, axis=1)


def write(data: bytes) -> int:
    """All of it."""
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]
    return len(data)


def main(source: Input, start: float, loop: bool) -> None:
    """Says how long it is when it has been opened, and decodes until the end."""
    told = written = False
    while written or not told:
        written = False
        with source.open() as container:
            if not container.streams.audio:
                sys.exit("decoder: there is no audio in it")
            if not told:
                seconds = container.duration / av.time_base if container.duration else 0.0
                print(json.dumps({"seconds": seconds}), file=sys.stderr, flush=True)  # noqa: T201
                told = True
            if start:
                seek(container, start)
            for data in samples(container, start):
                written = bool(write(data)) or written
        start, written = 0.0, written and loop


def seek(container: av.container.InputContainer, start: float) -> None:
    """Goes there, if it can; what is before is decoded otherwise, and left out."""
    try:
        container.seek(round(start * av.time_base))
    except av.FFmpegError:
        container.seek(0)


if __name__ == "__main__":
    av.logging.set_level(None)
    for what, most in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_FSIZE, 2 * _KEPT), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))
    try:
        main(
            Input(os.environ["DECODER_URL"], json.loads(os.environ["DECODER_OPTIONS"])),
            float(os.environ["DECODER_START"]),
            os.environ["DECODER_LOOP"] == "1",
        )
    except BrokenPipeError:
        pass
    except av.InvalidDataError:
        sys.exit("decoder: it is no audio of a kind that can be played")
    except (OSError, ValueError, av.FFmpegError) as error:
        sys.exit(f"decoder: {getattr(error, 'strerror', None) or error}")
