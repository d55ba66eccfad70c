"""A connection that receives many audio streams, which come and go: what SFUs offer their subscribers."""

from collections.abc import Callable, Mapping

from aiortc import RTCDataChannel, RTCSessionDescription

from audiomixer._core import Participant
from audiomixer.webrtc.connection import Connection
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.sections import Section, answer_all, excerpt, split


class Subscriber(Connection):
    """A connection that the other side offers, again and again, with one section for each stream.

    aiortc is shown the section of data channels and the first of audio, which have the transport of all others.

    Args:
        ice: Where it is offered.
        on_closed: As of `Connection`.
    """

    def __init__(self, ice: Ice, on_closed: Callable[[], None]) -> None:
        super().__init__(ice, bundled=True, on_channel=_ignore, on_closed=on_closed)
        self._ssrcs: dict[str, int] = {}
        """Of the last offer, by its section."""
        self._routes: dict[int, Participant] = {}
        self._first: str | None = None
        """The section of audio that aiortc knows."""
        self._version = 0

    async def answer(self, offer: str, participants: Callable[[], Mapping[str, Participant]]) -> str:
        """Answers an SDP offer, with all candidates in it. To be called for one offer after the other.

        Args:
            offer: All there is to receive from now on.
            participants: Tells, when asked, who is heard from which section, by its identification tag (RFC 8843).

        Raises:
            ValueError: The offer is no SDP.
            aiortc.exceptions.InvalidStateError: The connection has ended.
        """
        if self._version:
            # What is negotiated while it comes about, aiortc would not start to receive.
            await self._settled.wait()
        session, sections = split(offer)
        if self._first is None:
            await self._negotiate(session, sections)
        self._version += 1
        streams = [section for section in sections if section.kind == "audio" and section.sends]
        self._ssrcs = {section.mid: section.ssrc for section in streams if section.ssrc is not None}
        # What comes from now on may be somebody else's in the same place.
        self.route(participants())
        return answer_all(sections, self._pc.localDescription.sdp, self._version)

    async def _negotiate(self, session: str, sections: list[Section]) -> None:
        """Has aiortc connect, and receive once there is audio."""
        audio = next((s.mid for s in sections if s.kind == "audio" and s.sends and s.opus is not None), None)
        shown = [section for section in sections if section.kind == "application" or section.mid == audio]
        await self._pc.setRemoteDescription(RTCSessionDescription(excerpt(session, shown), "offer"))
        for transceiver in self._pc.getTransceivers():
            self.media.take_over(transceiver)
        if not self._version:
            self._restrict()
        await self._pc.setLocalDescription()
        if not self._version:
            self._expect()
        await self._add_candidates()
        self._first = audio

    def route(self, participants: Mapping[str, Participant]) -> None:
        """Says who is heard from which section of the last offer; nobody from those that are not mentioned."""
        wanted = {ssrc: participants[mid] for mid, ssrc in self._ssrcs.items() if mid in participants}
        for ssrc in self._routes.keys() - wanted.keys():
            self.media.inlet.route(ssrc, None)
        for ssrc, participant in wanted.items():
            if self._routes.get(ssrc) is not participant:
                self.media.inlet.route(ssrc, participant)
        self._routes = wanted


def _ignore(channel: RTCDataChannel) -> None:
    """What participants send each other is not for the mixer."""
