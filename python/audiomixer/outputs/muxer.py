"""An FFmpeg container with the mix, and with its metadata where the format has a place for it."""

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import av

from audiomixer.audio.encoding import Codec, Encoding
from audiomixer.audio.metadata import id3, on_text_data
from audiomixer.clock.frame import SAMPLE_RATE, TIME_BASE
from audiomixer.outputs.picture import Picture
from audiomixer.outputs.queued import Item, Payload

_AT_ONCE: Final = {"flush_packets": "1"}
"""What is muxed is on its way: a recording is as long as the process lived, however it died."""
IN_STEP: Final = {"max_interleave_delta": "1"}
"""Or else audio waits for the next payload, to be in order with it."""
_MOST_PAYLOADS: Final = 100
"""Payloads that may wait for their audio; then the oldest are dropped."""
_AFTER_AUDIO: Final = SAMPLE_RATE
"""In the end, payloads may come so much later than all audio, in 1/48000 s."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of container."""

    name: str
    """FFmpeg's name."""
    codec: Codec
    options: Mapping[str, str]
    text_codec: str | None = None
    """FFmpeg's name of the codec of metadata; None if it has none."""
    text: Callable[[str], bytes] | None = None
    """How metadata is written."""


FLV: Final = Format("flv", "aac", _AT_ONCE | IN_STEP | {"flvflags": "no_duration_filesize"}, None, on_text_data)
TS: Final = Format("mpegts", "aac", _AT_ONCE | IN_STEP, "timed_id3", id3)
OGG: Final = Format("ogg", "opus", _AT_ONCE | {"page_duration": "200000"})
MP3: Final = Format("mp3", "mp3", _AT_ONCE | {"write_xing": "0"})
FILES: Final = {
    # Fragments, clusters and pages of half a second or less: what was written can be played without what was not.
    ".m4a": Format("mp4", "aac", _AT_ONCE | {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"}),
    ".mp3": MP3,
    ".ogg": OGG,
    # Beyond 4 GiB, sizes have 64 bits (EBU Tech 3306).
    ".wav": Format("wav", "pcm", _AT_ONCE | {"rf64": "auto"}),
    ".mka": Format("matroska", "opus", _AT_ONCE | {"cluster_time_limit": "500"}),
}


class Muxer:
    """Writes packets and payloads, the first packet's time being the container's zero if `rebase`.

    Args:
        file: A path, or an object with a `write` method.
        container: The kind.
        encoding: What the packets are encoded to.
        rebase: Whether times are counted from the first packet.
        picture: What is to be seen as well.
        io_open: Opens what the container writes beside `file`, as `av.open` says.

    Raises:
        OSError: It cannot be opened.
        av.FFmpegError: Likewise.
    """

    def __init__(
        self,
        file: Any,
        container: Format,
        encoding: Encoding,
        *,
        rebase: bool = False,
        picture: Picture | None = None,
        io_open: Callable[..., Any] | None = None,
    ) -> None:
        self._format = container
        self._container = av.open(file, "w", format=container.name, options=dict(container.options), io_open=io_open)
        self._audio = self._container.add_stream(encoding.library, rate=SAMPLE_RATE)
        encoding.configure(self._audio.codec_context)
        self._picture = picture
        if picture:
            picture.begin(self._container)
        self._text = self._container.add_data_stream(container.text_codec) if container.text else None
        self._waiting: deque[Payload] = deque(maxlen=_MOST_PAYLOADS)
        self._newest = 0
        """Time of the newest payload written."""
        self._end = 0
        """Time after the last packet."""
        self._zero: int | None = None if rebase else 0
        try:
            self._container.start_encoding()
        except BaseException:
            with contextlib.suppress(Exception):
                self._container.close()
            raise

    def write(self, item: Item) -> None:
        """Writes a packet, or a payload if there is a place for it: that waits for the packet of its time.

        Packets have to come in one thread at a time; a payload, which is only put aside, may come in another.
        """
        if isinstance(item, Payload):
            if self._picture:
                self._picture.tell(item.text)
            if self._text is not None:
                self._waiting.append(item)
            return
        if self._zero is None:
            self._zero = item.pts
        self._write_payloads(item.pts)
        if self._picture:
            for seen in self._picture.packets(item.pts - self._zero):
                self._container.mux_one(seen)
        packet = item.to_av()
        packet.pts = packet.dts = item.pts - self._zero
        packet.stream = self._audio
        self._container.mux_one(packet)
        self._end = item.pts + item.duration

    def _write_payloads(self, until: int) -> None:
        while self._waiting and self._waiting[0].time * SAMPLE_RATE <= until:
            payload = self._waiting.popleft()
            if self._text is None or self._format.text is None:
                continue
            # An application's payload may have been made just before one that came first.
            self._newest = max(self._newest, round(payload.time * SAMPLE_RATE) - (self._zero or 0))
            packet = av.Packet(self._format.text(payload.text))
            packet.pts = packet.dts = self._newest
            packet.time_base = TIME_BASE
            packet.stream = self._text
            self._container.mux_one(packet)

    def close(self) -> None:
        """Ends the container, with the payloads that waited for the last audio."""
        try:
            self._write_payloads(self._end + _AFTER_AUDIO)
        finally:
            self._container.close()
