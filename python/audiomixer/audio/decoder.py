"""Decodes whatever FFmpeg reads, in a process of its own: what hangs, lies or crashes there harms nobody."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
from numpy.typing import NDArray

from audiomixer.clock.frame import BLOCK, FRAME_SIZE

_AHEAD: Final = 50
"""Frames that are read ahead: a second."""
_BYTES: Final = FRAME_SIZE * 2 * 4
_PATIENCE: Final = 1.0
_PASSED: Final = {
    *("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "no_proxy"),
}
"""Variables that the process gets: secrets are in others."""


class DecodingError(Exception):
    """It cannot be decoded; the message says why."""


class Decoder:
    """Samples as they are wanted, from any thread but to be opened in one that may wait.

    Args:
        url: A path, or a URL of any protocol that FFmpeg has.
        start: Where to begin, in seconds.
        loop: Whether it begins again when it ends, without a gap.
        options: Options of FFmpeg's container and protocol.
        feed: What is decoded, instead of what the URL names.
        timeout: Seconds for it to be opened.

    Raises:
        DecodingError: It cannot be opened in time, or not at all, or has no audio.
    """

    def __init__(
        self,
        url: str,
        *,
        start: float = 0.0,
        loop: bool = False,
        options: Mapping[str, str] | None = None,
        feed: IO[bytes] | int | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.seconds = 0.0
        """How long it is; 0 if that is not known."""
        self.error = ""
        """Why it has ended too early, if it has."""
        self.ended = False
        """Whether all of it has been read."""
        self._pieces: queue.Queue[NDArray[np.float32]] = queue.Queue(_AHEAD)
        self._closing = threading.Event()
        environment = {
            "DECODER_URL": url if feed is None else "-",
            "DECODER_OPTIONS": json.dumps(dict(options or {})),
            "DECODER_START": str(start),
            "DECODER_LOOP": str(int(loop)),
        }
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(Path(__file__).with_name("decoder_process.py"))],
            stdin=subprocess.DEVNULL if feed is None else feed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name in _PASSED} | environment,
            start_new_session=True,
        )
        self._told = threading.Event()
        """Set when it is known how long it is."""
        self._opened = threading.Event()
        """Set when there is a block to take, or all there is."""
        self._said = ""
        threads = (self._listen, self._read)
        self._threads = [threading.Thread(target=work, name="decoder", daemon=True) for work in threads]
        for thread in self._threads:
            thread.start()
        if not self._opened.wait(timeout):
            self.close()
            raise DecodingError("it does not answer")
        if self.is_over or self.error:
            self.close()
            raise DecodingError(self.error or "there is no audio in it")

    def _listen(self) -> None:
        with cast("IO[bytes]", self._process.stderr) as stderr:
            for line in stderr:
                text = line.decode(errors="replace").strip()
                if text.startswith('{"seconds"'):
                    self.seconds = float(json.loads(text)["seconds"])
                    self._told.set()
                elif text.startswith("decoder: "):
                    self.error = text.removeprefix("decoder: ")
                elif text:
                    self._said = text

    def _read(self) -> None:
        with cast("IO[bytes]", self._process.stdout) as stdout:
            while not self._closing.is_set() and (data := stdout.read(_BYTES)):
                self._put(np.frombuffer(data[: len(data) // 8 * 8], np.float32).reshape(-1, 2))
                self._told.wait(_PATIENCE)
                if self._pieces.qsize() >= BLOCK:
                    self._opened.set()
        if not self._closing.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._threads[0].join(_PATIENCE)
                if self._process.wait(_PATIENCE) and not self.error:
                    self.error = self._said or "the decoder broke down"
        self.ended = True
        self._opened.set()

    def _put(self, piece: NDArray[np.float32]) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(queue.Full):
                self._pieces.put(piece, timeout=0.1)
                return

    def take(self) -> NDArray[np.float32] | None:
        """The next 20 ms, or what there is at the end: float32 of shape `(960, 2)`; None if nothing has come yet."""
        try:
            return self._pieces.get_nowait()
        except queue.Empty:
            return None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.ended and self._pieces.empty()

    def break_off(self, error: str) -> None:
        """What feeds it has failed: there is no more than has been decoded."""
        self.error = error
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """Ends the process."""
        self._closing.set()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
