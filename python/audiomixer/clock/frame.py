"""What a frame is: the unit of everything that happens in time."""

from fractions import Fraction
from typing import Final

SAMPLE_RATE: Final = 48_000
"""Samples a second of all that is mixed and encoded."""
FRAME_SIZE: Final = 960
"""Samples per channel of a frame."""
FRAME: Final = FRAME_SIZE / SAMPLE_RATE
"""Seconds of it."""
TIME_BASE: Final = Fraction(1, SAMPLE_RATE)
"""What times in samples count."""
BLOCK: Final = 5
"""Frames that are handed out and encoded together, where nobody needs each at once."""
INTERVAL: Final = 0.5
"""Seconds between two readings of the volumes."""
