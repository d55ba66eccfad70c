"""A connection with one audio stream each way, and optional data channels: what WHIP and WHEP need."""

from collections.abc import Callable
from typing import Any, Final, Literal, cast

from aiortc import RTCDataChannel, RTCSessionDescription
from aiortc.sdp import SessionDescription

from audiomixer._core import Intake
from audiomixer.webrtc.connection import OPUS, Connection, with_opus_parameters
from audiomixer.webrtc.ice import Ice

_LARGEST_OFFER: Final = 64 * 1024

Direction = Literal["sendrecv", "sendonly", "recvonly"]


class OfferError(ValueError):
    """An SDP offer that cannot be answered; the message begins with `offer:`."""


class Peer(Connection):
    """A connection with one audio stream.

    Args:
        ice: Where it is offered.
        direction: Of the media.
        intake: As of `Connection`.
        on_channel: As of `Connection`.
        on_closed: As of `Connection`.
    """

    def __init__(
        self,
        ice: Ice,
        direction: Direction,
        *,
        intake: Intake | None = None,
        on_channel: Callable[[RTCDataChannel], None] | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(ice, intake=intake, on_channel=on_channel, on_closed=on_closed)
        self._transceiver = self._pc.addTransceiver("audio", direction=direction)
        self._transceiver.setCodecPreferences([OPUS])
        self.media.take_over(self._transceiver)

    @property
    def sends(self) -> bool:
        """Whether the other side wants to hear anything."""
        return self._transceiver.currentDirection in {"sendrecv", "sendonly"}

    @property
    def receives(self) -> bool:
        """Whether the other side wants to be heard."""
        return self._transceiver.currentDirection in {"sendrecv", "recvonly"}

    @property
    def track_id(self) -> str:
        """The id under which an offer has the stream that is sent."""
        return str(cast("Any", self._transceiver.sender)._track_id)

    def open_channel(self, label: str, *, reliable: bool = True) -> RTCDataChannel:
        """Offers a data channel; to be called before `offer`."""
        return self._pc.createDataChannel(label, ordered=reliable, maxRetransmits=None if reliable else 0)

    async def answer(self, offer: str) -> str:
        """Answers an SDP offer, with all candidates in it.

        Raises:
            OfferError: The offer is no SDP, or has no Opus audio; the peer is closed then.
        """
        try:
            _check(offer)
            answer = await self._negotiate(offer)
        except OfferError:
            await self.close()
            raise
        except Exception as error:
            await self.close()
            raise OfferError(f"offer: {error}") from error
        except BaseException:
            await self.close()
            raise
        self._expect()
        return answer

    async def _negotiate(self, offer: str) -> str:
        await self._pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        for other in self._pc.getTransceivers():
            if other is not self._transceiver:
                other.direction = "inactive"
        self._restrict()
        await self._pc.setLocalDescription()
        answer = with_opus_parameters(self._pc.localDescription.sdp)
        if "a=candidate:" not in answer:
            raise OfferError("offer: expected an audio section that can be connected to")
        return answer

    async def offer(self) -> str:
        """Makes an SDP offer, with all candidates in it."""
        offer = await self._pc.createOffer()
        self._restrict()
        await self._pc.setLocalDescription(offer)
        return str(self._pc.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        """Applies the answer to `offer`."""
        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        self._expect()
        await self._add_candidates()


def _check(offer: str) -> None:
    if len(offer) > _LARGEST_OFFER:
        raise OfferError(f"offer: expected at most {_LARGEST_OFFER} bytes, got {len(offer)}")
    if not offer.startswith("v=0"):
        raise OfferError("offer: expected SDP, beginning with v=0")
    try:
        media = SessionDescription.parse(offer).media
    except Exception as error:
        raise OfferError(f"offer: expected SDP: {error}") from error
    audio = [m for m in media if m.kind == "audio" and m.port]
    if not audio:
        raise OfferError("offer: expected an audio section")
    if not any(codec.name.lower() == "opus" for m in audio for codec in m.rtp.codecs):
        raise OfferError("offer: expected Opus among the audio codecs")
    if not any(m.ice and m.ice.usernameFragment and m.dtls and m.dtls.fingerprints for m in media):
        raise OfferError("offer: expected ICE credentials and a DTLS fingerprint")
