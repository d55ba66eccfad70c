"""What the participants of a local room hear: everybody but themselves.

Who is silent hears the mix, with those whom a host has put aside, encoded once for all of them. Who is not has a
limiter and an encoder of its own, until it has been silent for two seconds.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audiomixer._core import Fanout, Mixer, Participant
from audiomixer.audio.encoding import Encoder, Encoding
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.webrtc.media import Media

_ENCODING: Final = Encoding("opus", 64)
_WARMING: Final = 3
"""Frames that an encoder is given ahead: then a decoder that goes on with its packets makes no click."""

_log = logging.getLogger(__name__)


class Return:
    """What one participant hears.

    Args:
        participant: Who it is in the mix.
        media: Where it is sent.
        on_failure: Called when nothing can be encoded for it any more, in the thread that mixes.
    """

    def __init__(self, participant: Participant, media: Media, on_failure: Callable[[], None]) -> None:
        self.participant = participant
        self.media = media
        self.on_failure = on_failure
        self.encoder: Encoder | None = None
        """Its own; None while it hears what all listeners do."""


class Raw:
    """What one participant hears, as samples.

    Args:
        participant: Who it is in the mix.
        take: Is given each frame, float32 of shape `(960, 2)`, which is another's afterwards, in the thread that mixes.
        on_failure: As of `Return`.
    """

    def __init__(
        self, participant: Participant, take: Callable[[NDArray[np.float32]], None], on_failure: Callable[[], None]
    ) -> None:
        self.participant = participant
        self.take = take
        self.on_failure = on_failure


class Returns:
    """What all participants hear of one room's mix. `listeners` is replaced on the event loop; the rest is the mix's.

    Args:
        mixer: The room's.
    """

    def __init__(self, mixer: Mixer) -> None:
        self.listeners: tuple[Return | Raw, ...] = ()
        """Whoever wants to hear something; to be replaced as a whole."""
        self._mixer = mixer
        self._fanout = Fanout()
        self._sharing: set[Return] = set()
        """Who is in the fan-out."""
        self._shared: Encoder | None = None
        self._everybody = np.zeros((FRAME_SIZE, 2), np.float32)
        self._minus = np.zeros((FRAME_SIZE, 2), np.float32)
        self._recent = deque(np.zeros((_WARMING, FRAME_SIZE, 2), np.float32))
        """The last frames of the mix, the oldest first."""
        self._known: tuple[Return | Raw, ...] = ()
        """Those of the last mix."""
        self._time = 0
        """Of the next sample, in 1/48000 s."""

    def send(self, samples: NDArray[np.float32]) -> None:
        """Sends each listener what it hears of the last mix.

        Args:
            samples: That mix, float32 of shape `(960, 2)`.
        """
        if self._mixer.has_aside:
            samples = self._mixer.mix_minus(None, self._everybody)
        listeners = self.listeners
        if listeners is not self._known:
            self._known = listeners
            for gone in self._sharing.difference(listeners):
                self._part(gone)
        for listener in listeners:
            try:
                if isinstance(listener, Raw):
                    self._mixer.mix_minus(listener.participant, self._minus)
                    listener.take(self._minus)
                elif listener.participant.audible:
                    self._send_own(listener)
                elif listener not in self._sharing:
                    self._join(listener)
            except Exception:
                _log.exception("encoding for a participant failed, who has to join again")
                listener.on_failure()
        try:
            self._send_shared(samples)
        except Exception:
            _log.exception("encoding for who is silent failed, and begins anew")
            self._shared = None
        self._recent.rotate(-1)
        self._recent[-1][:] = samples
        self._time += FRAME_SIZE

    def _send_shared(self, samples: NDArray[np.float32]) -> None:
        if not self._sharing:
            self._shared = None
            return
        self._shared = self._shared or self._warm()
        for packet in self._shared.encode(samples):
            self._fanout.send(packet.data, packet.pts)

    def _send_own(self, listener: Return) -> None:
        self._part(listener)
        try:
            self._mixer.mix_minus(listener.participant, self._minus)
        except ValueError:
            return  # It has left since.
        listener.encoder = listener.encoder or self._warm()
        for packet in listener.encoder.encode(self._minus):
            listener.media.send(packet.data, packet.pts)

    def _join(self, listener: Return) -> None:
        listener.encoder = None
        self._sharing.add(listener)
        self._fanout.add(listener.media.outlet, listener.media.send_unsent)

    def _part(self, listener: Return) -> None:
        if listener in self._sharing:
            self._sharing.discard(listener)
            self._fanout.remove(listener.media.outlet)

    def _warm(self) -> Encoder:
        """An encoder that has been given the last frames of the mix."""
        encoder = Encoder(_ENCODING, self._time - len(self._recent) * FRAME_SIZE)
        for frame in self._recent:
            encoder.encode(frame)
        return encoder
