"""Decodes a file, a URL or standard input to samples on standard output; run as a program by `decoder.py`.

What it is told comes by the environment: arguments can be read by everybody on the machine, and a URL may hold a key.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

import av
import numpy as np

RATE = 48_000
_KEPT = 256 << 20
"""Bytes of standard input that are kept to be read again; it ends there."""
_IN_MEMORY = 8 << 20
_CHUNK = 65536


class Kept:
    """Standard input, which can be read again: some containers have at their end what has to be known first."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - as long as the process
        self._size = 0
        self._position = 0
        self._ended = False

    def _fill(self, size: int) -> None:
        self._file.seek(self._size)
        while not self._ended and self._size < size:
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

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes on elsewhere."""
        if whence == os.SEEK_END:
            self._fill(_KEPT)
            offset += self._size
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = max(0, offset)
        return self._position


def samples(container: av.container.InputContainer, start: float) -> Iterator[bytes]:
    """The audio from `start` seconds on: float32, stereo, 48 kHz."""
    stream = container.streams.audio[0]
    if start:
        container.seek(round(start * av.time_base))
    resampler = av.AudioResampler("flt", "stereo", RATE)
    skipped = False
    for frame in container.decode(stream):
        skip = 0
        if not skipped and frame.time is not None:
            skip = max(0, round((start - frame.time) * RATE)) if start else 0
            if skip >= frame.samples * RATE // frame.sample_rate:
                continue
            skipped = True
        for piece in resampler.resample(frame):
            yield piece.to_ndarray().reshape(-1, 2)[skip:].tobytes()
            skip = 0
    for piece in resampler.resample(None):
        yield piece.to_ndarray().tobytes()


def write(data: bytes) -> None:
    """All of it."""
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]


def main(url: str, options: dict[str, str], start: float, loop: bool) -> None:
    """Says how long it is when it has been opened, and decodes until the end."""
    with av.open(Kept() if url == "-" else url, "r", options=options) as container:
        if not container.streams.audio:
            sys.exit("decoder: there is no audio in it")
        seconds = container.duration / av.time_base if container.duration else 0.0
        print(json.dumps({"seconds": seconds}), file=sys.stderr, flush=True)  # noqa: T201
        while True:
            written = 0
            for data in samples(container, start):
                written += len(data)
                write(data)
            if not loop or not written:
                return
            start = 0.0
            container.seek(0)


if __name__ == "__main__":
    av.logging.set_level(None)
    np.seterr(all="ignore")
    try:
        main(
            os.environ["DECODER_URL"],
            json.loads(os.environ["DECODER_OPTIONS"]),
            float(os.environ["DECODER_START"]),
            os.environ["DECODER_LOOP"] == "1",
        )
    except BrokenPipeError:
        pass
    except (OSError, ValueError, av.FFmpegError) as error:
        sys.exit(f"decoder: {getattr(error, 'strerror', None) or error}")
