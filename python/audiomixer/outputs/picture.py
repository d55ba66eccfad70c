"""A picture beside the sound, for receivers that take no sound alone: a still one, or ours, with who is how loud."""

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.container import OutputContainer
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from audiomixer.clock.frame import SAMPLE_RATE

SIZE: Final = (1280, 720)
_RATE: Final = 5
"""Frames a second: less, and some receivers take it for a fault."""
_DRAWN: Final = 1
"""Seconds between two pictures that differ."""
_KEY: Final = 2
"""Seconds between two key frames."""
_OPTIONS: Final = {
    "preset": "ultrafast",
    "tune": "zerolatency",
    "profile": "baseline",
    # Encoded in one thread, it is no more than one core is given.
    "x264-params": "threads=1:scenecut=0",
    "crf": "26",
}
_LARGEST: Final = 40_000_000
"""Pixels of a file that is read."""
_FLOOR: Final = -60.0
"""dBFS at the low end of meters."""
_ROWS: Final = 8
"""Speakers that there is room for: the loudest."""

_GROUND: Final = (18, 22, 26)
_INK: Final = (236, 239, 241)
_FAINT: Final = (152, 164, 172)
_LINE: Final = (46, 55, 62)
_METER: Final = (53, 196, 171)
_FONTS: Final = (
    "NotoSansCJK-Regular.ttc",
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
)


class Picture:
    """What is seen, as H.264 in the stream of one container.

    Args:
        file: A picture's; ours, if None.
        title: What ours is headed with.

    Raises:
        ValueError: The file is no picture.
    """

    def __init__(self, file: str | None = None, title: str = "") -> None:
        self._still = _read(file) if file else None
        self._title = title
        self._volumes: dict[str, int] = {}
        self._frame: av.VideoFrame | None = None
        self._next = 0
        """Number of the next frame."""

    def begin(self, container: OutputContainer) -> None:
        """Has a stream of it in a container, from its beginning."""
        self._stream = container.add_stream("libx264", rate=_RATE, options=dict(_OPTIONS))
        self._stream.width, self._stream.height = SIZE
        self._stream.pix_fmt = "yuv420p"
        self._stream.gop_size = _KEY * _RATE
        self._stream.codec_context.time_base = Fraction(1, _RATE)
        self._next = 0

    def tell(self, payload: str) -> None:
        """Who is how loud, as metadata has it."""
        try:
            told = json.loads(payload)["p"]
            self._volumes = {str(identity): int(volume["v"]) for identity, volume in told.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # It is one of the application's own.

    def packets(self, until: int) -> "Iterator[av.Packet[Any]]":
        """What is to be seen up to a time, in 1/48000 s, from what was asked for last."""
        while self._next * SAMPLE_RATE <= until * _RATE:
            if self._frame is None or (self._still is None and self._next % (_DRAWN * _RATE) == 0):
                image = self._still or draw(self._title, self._volumes)
                self._frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24").reformat(format="yuv420p")
            self._frame.pts = self._next
            self._frame.time_base = Fraction(1, _RATE)
            self._frame.pict_type = av.video.frame.PictureType.NONE
            self._next += 1
            yield from self._stream.encode(self._frame)


def _read(file: str) -> Image.Image:
    """A picture, as large as there is room for it."""
    try:
        with Image.open(Path(file)) as image:
            if image.width * image.height > _LARGEST:
                raise ValueError(f"picture: expected at most {_LARGEST} pixels, {file} has more")
            still = Image.new("RGB", SIZE, _GROUND)
            shown = image.convert("RGBA")
            shown.thumbnail(SIZE) if shown.width > SIZE[0] or shown.height > SIZE[1] else None
            still.paste(shown, ((SIZE[0] - shown.width) // 2, (SIZE[1] - shown.height) // 2), shown)
            return still
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"picture: expected a picture that can be read, got {file}: {error}") from None


def draw(title: str, volumes: dict[str, int]) -> Image.Image:
    """Our picture: a title, and below it who is how loud; -1 is muted."""
    image = Image.new("RGB", SIZE, _GROUND)
    canvas = ImageDraw.Draw(image)
    canvas.text((80, 64), _fitted(title or "Live", 56, SIZE[0] - 160), font=_font(56), fill=_INK)
    loudest = sorted(volumes.items(), key=lambda told: -told[1])[:_ROWS]
    top, step = 190, 62
    for row, (identity, volume) in enumerate(sorted(loudest)):
        y = top + row * step
        canvas.text((80, y), _fitted(identity, 30, 380), font=_font(30), fill=_INK if volume >= 0 else _FAINT)
        canvas.rounded_rectangle((500, y + 8, 1200, y + 32), 12, fill=_LINE)
        decibels = 20 * math.log10(max(volume, 1) / 32767)
        width = round(700 * max(0.0, 1 - decibels / _FLOOR))
        if width > 24:
            canvas.rounded_rectangle((500, y + 8, 500 + width, y + 32), 12, fill=_METER)
    return image


def _fitted(text: str, size: int, width: int) -> str:
    """As much of a text as there is room for."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font with as many of the world's letters as this machine has."""
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("expected Pillow with FreeType")
    return font
