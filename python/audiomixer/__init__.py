"""Mixes the people in a WebRTC room into one live stream, and tells how loud each of them is.

`Mixer` is the core: RTP packets or NumPy arrays in, mixed frames out, no network and no clock.
`AudioMixer` is the whole: it joins a room and feeds outputs, in asyncio.
"""

from audiomixer._core import Mixer, Participant, Stats
from audiomixer.audio.loudness import Loudness
from audiomixer.audio.metadata import TimedMetadata, Volume
from audiomixer.audio.taps import MixFrame, ParticipantFrame
from audiomixer.mixer import AudioMixer
from audiomixer.outputs.base import OutputEvent
from audiomixer.rooms.base import Vitals
from audiomixer.rooms.source import Source, SourceError
from audiomixer.rooms.strip import Strip

__all__ = [
    "AudioMixer",
    "Loudness",
    "MixFrame",
    "Mixer",
    "OutputEvent",
    "Participant",
    "ParticipantFrame",
    "Source",
    "SourceError",
    "Stats",
    "Strip",
    "TimedMetadata",
    "Vitals",
    "Volume",
]
