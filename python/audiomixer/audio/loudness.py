"""How loud a mix is, as broadcasters measure it."""

from dataclasses import dataclass
from math import inf
from typing import Final

from audiomixer._core import Mixer

QUIETEST_TARGET: Final = -40.0
LOUDEST_TARGET: Final = -12.0
"""Between these a mix can be brought to a target."""


@dataclass(frozen=True, slots=True)
class Loudness:
    """In LUFS, by ITU-R BS.1770-5 and EBU R 128; -inf is silence."""

    momentary: float
    """Of the last 400 ms."""
    short_term: float
    """Of the last 3 s."""
    integrated: float
    """Of everything since it is measured, gated."""
    gain_db: float
    """What the mix is turned up or down by just now."""
    reduction_db: float
    """What the limiter took away of its peaks, at most, in the last half second: 0 or less."""


def measure(mixer: Mixer) -> Loudness:
    """How loud a mix is; measured from when this is asked first, or since it has a target."""
    measured = mixer.loudness
    if measured is None:
        mixer.measure_loudness()
        measured = mixer.loudness
    return Loudness(*(measured or (-inf, -inf, -inf, 0.0, 0.0)))
