"""Receivers that play out a stream in virtual time: ours, stock aiortc's, and a decoder that nothing is kept from."""

import numpy as np
from aiortc.codecs.opus import OpusDecoder
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket

from audiomixer.clock.frame import FRAME_SIZE
from benches.quality.measures import Played
from benches.quality.network import PACKET, Arrival, ticks
from benches.quality.ours import receive
from tests.opus import Decoder


def straight(payloads: list[bytes], arrivals: list[Arrival], seconds: float) -> Played:
    """Decodes every packet that was sent, whatever the network did: as good as it gets."""
    decoder = Decoder()
    return Played(np.concatenate([decoder.decode(payload, FRAME_SIZE) for payload in payloads]), 0)


def ours(payloads: list[bytes], arrivals: list[Arrival], seconds: float) -> Played:
    """`Mixer`."""
    samples, stats = receive(payloads, arrivals, seconds)
    return Played(samples, stats.concealed / seconds)


def aiortc(payloads: list[bytes], arrivals: list[Arrival], seconds: float) -> Played:
    """Stock: aiortc's own jitter buffer and decoder, read once every 20 ms; silence where it has nothing."""
    buffer, decoder = JitterBuffer(capacity=16, prefetch=4), OpusDecoder()
    waiting: list[np.ndarray] = []

    def push(arrival: Arrival) -> None:
        number = arrival.number
        packet = RtpPacket(sequence_number=number & 0xFFFF, timestamp=number * FRAME_SIZE, payload=payloads[number])
        packet._data = packet.payload
        _, encoded = buffer.add(packet)
        decoded = decoder.decode(encoded) if encoded else []
        waiting.extend(frame.to_ndarray().reshape(-1, 2)[:, 0].astype(np.float32) / 32768 for frame in decoded)

    silence, frames, missing = np.zeros(FRAME_SIZE, np.float32), [], 0
    for _ in ticks(arrivals, seconds, PACKET, push):
        missing += not waiting
        frames.append(waiting.pop(0) if waiting else silence)
    return Played(np.concatenate(frames), missing / len(frames))
