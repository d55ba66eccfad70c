"""An offer by a stock aiortc."""

from collections.abc import Awaitable, Callable

from aiortc import RTCPeerConnection, RTCSessionDescription


async def stock_offer(connection: RTCPeerConnection, answer: Callable[[str], Awaitable[str]]) -> None:
    """Has an offer of `connection` answered."""
    await connection.setLocalDescription(await connection.createOffer())
    answered = await answer(connection.localDescription.sdp)
    await connection.setRemoteDescription(RTCSessionDescription(answered, "answer"))
