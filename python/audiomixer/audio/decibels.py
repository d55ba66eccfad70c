"""Gains as hosts think of them."""

import math
from typing import Final

LOUDEST: Final = 12.0
QUIETEST: Final = -60.0
"""Decibels; below, there is only mute."""
_MOST: Final = 4.0


def gain_of(decibels: float) -> float:
    """What decibels multiply with.

    Raises:
        ValueError: They are not within -60 to 12.
    """
    if not QUIETEST <= decibels <= LOUDEST:
        raise ValueError(f"gain_db: expected {QUIETEST:.0f} to {LOUDEST:.0f} dB, got {decibels!r}")
    return float(10 ** (decibels / 20))


def checked_gain(gain: float) -> float:
    """A gain, if it is one.

    Raises:
        ValueError: It is not within 0 to 4.
    """
    if not 0 <= gain <= _MOST:
        raise ValueError(f"gain: expected 0 to {_MOST:.0f}, got {gain!r}")
    return gain


def decibels_of(gain: float) -> float:
    """What a gain is in decibels, at least -60."""
    return max(QUIETEST, round(20 * math.log10(gain), 2)) if gain > 0 else QUIETEST
