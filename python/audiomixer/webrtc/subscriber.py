"""A connection that receives many audio streams, which come and go: what SFUs offer their subscribers."""

import re
from collections.abc import Callable, Mapping

from aiortc import RTCDataChannel, RTCSessionDescription
from aiortc.sdp import SessionDescription

from audiomixer._core import Intake, Participant
from audiomixer.webrtc.connection import Connection, with_opus_parameters
from audiomixer.webrtc.ice import Ice


class Subscriber(Connection):
    """A connection that the other side offers, again and again, with one section for each stream.

    Args:
        ice: Where it is offered.
        intake: As of `Connection`.
        on_closed: As of `Connection`.
    """

    def __init__(self, ice: Ice, intake: Intake, on_closed: Callable[[], None]) -> None:
        super().__init__(ice, intake=intake, bundled=True, on_channel=_ignore, on_closed=on_closed)
        self._ssrcs: dict[str, int] = {}
        """Of the last offer, by its section."""
        self._routes: dict[int, Participant] = {}
        self._negotiated = False
        self._taken = 0
        """Transceivers whose media is out of aiortc's hands."""

    async def answer(self, offer: str, participants: Callable[[], Mapping[str, Participant]]) -> str:
        """Answers an SDP offer, with all candidates in it. To be called for one offer after the other.

        Args:
            offer: All there is to receive from now on.
            participants: Tells, when asked, who is heard from which section, by its identification tag (RFC 8843).

        Raises:
            ValueError: The offer is no SDP.
            aiortc.exceptions.InvalidStateError: The connection has ended.
        """
        if self._negotiated:
            # What is negotiated while it comes about, aiortc would not start to receive.
            await self._settled.wait()
        offer = _without_rejected(offer)
        description = SessionDescription.parse(offer)
        audio = [m for m in description.media if m.kind == "audio"]
        self._ssrcs = {m.rtp.muxId: m.ssrc[0].ssrc for m in audio if m.ssrc and m.direction in {"sendonly", "sendrecv"}}
        await self._pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        transceivers = self._pc.getTransceivers()
        for transceiver in transceivers[self._taken :]:
            if transceiver.kind == "audio":
                self.media.take_over(transceiver)
            else:
                transceiver.direction = "inactive"
        self._taken = len(transceivers)
        first, self._negotiated = not self._negotiated, True
        if first:
            self._restrict()
        # What comes from now on may be somebody else's in the same place.
        self.route(participants())
        await self._pc.setLocalDescription()
        if first:
            self._expect()
            await self._add_candidates()
        return with_opus_parameters(self._pc.localDescription.sdp)

    def route(self, participants: Mapping[str, Participant]) -> None:
        """Says who is heard from which section of the last offer; nobody from those that are not mentioned."""
        wanted = {ssrc: participants[mid] for mid, ssrc in self._ssrcs.items() if mid in participants}
        for ssrc in self._routes.keys() - wanted.keys():
            self.media.inlet.route(ssrc, None)
        for ssrc, participant in wanted.items():
            if self._routes.get(ssrc) is not participant:
                self.media.inlet.route(ssrc, participant)
        self._routes = wanted


def _without_rejected(offer: str) -> str:
    """Makes rejected sections inactive ones: aiortc fails where it cannot connect to each."""
    return re.sub(r"^m=audio 0 ", "m=audio 9 ", offer, flags=re.MULTILINE)


def _ignore(channel: RTCDataChannel) -> None:
    """What participants send each other is not for the mixer."""
