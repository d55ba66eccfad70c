"""The real NetEq: Chromium receives the stream through a relay that loses and delays packets, and records it."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from playwright.async_api import Browser, Page, async_playwright
from scipy.signal import correlate

from audiomixer.clock.frame import FRAME_SIZE, SAMPLE_RATE
from audiomixer.webrtc.ice import Ice
from audiomixer.webrtc.peer import Peer
from benches.quality.measures import CHUNK, WARM_UP, Played
from benches.quality.network import PACKET, Network
from tests.browser import FLAGS
from tests.signals import Signal

AT_ONCE = 4
"""Connections at a time: they take real time, and little else."""
_ADDRESS = "127.0.0.1"
_PAGE = "https://laboratory.test/"
_HEAD_START = 0.005
"""Seconds from the sending of a packet to its arrival where the network is perfect."""
_TAIL = 1.0
_CONNECT = """
async () => {
    const context = new AudioContext({ sampleRate: 48000 });
    const recorder = `registerProcessor('recorder', class extends AudioWorkletProcessor {
        process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; }
    })`;
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([recorder], { type: 'text/javascript' })));
    window.recorded = [];
    window.pc = new RTCPeerConnection();
    pc.addTransceiver('audio', { direction: 'recvonly' });
    pc.ontrack = ({ track }) => {
        const stream = new MediaStream([track]);
        window.element = Object.assign(new Audio(), { srcObject: stream, muted: true });
        element.play();
        const node = new AudioWorkletNode(context, 'recorder');
        node.port.onmessage = ({ data }) => recorded.push(data);
        context.createMediaStreamSource(stream).connect(node).connect(context.destination);
    };
    await pc.setLocalDescription();
    return pc.localDescription.sdp;
}
"""
_ANSWER = "async (sdp) => { await pc.setRemoteDescription({ type: 'answer', sdp }); }"
_STATISTICS = """
async () => [...(await pc.getStats()).values()].find((report) => report.type === 'inbound-rtp')
"""
_RECORDING = """
async () => {
    const blob = new Blob(recorded);
    const reader = new FileReader();
    await new Promise((resolve) => { reader.onload = resolve; reader.readAsDataURL(blob); });
    return reader.result.split(',')[1];
}
"""


class Relay(asyncio.DatagramProtocol):
    """Between a server and a browser: sends RTP on when the network says so, and all else at once."""

    def __init__(self, server: tuple[str, int], network: Network, packets: int, seed: int) -> None:
        self._server = server
        self._browser: tuple[str, int] | None = None
        self._late: dict[int, list[float]] = {}
        for arrival in network.transmit(packets, seed):
            self._late.setdefault(arrival.number, []).append(arrival.at - arrival.number * PACKET)
        self._first: int | None = None
        self._began = 0.0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if address != self._server:
            self._browser = address
            self._transport.sendto(data, self._server)
        elif 128 <= data[0] < 192 and not 64 <= data[1] & 0x7F < 96:
            self._delay(data)
        else:
            self._transport.sendto(data, self._browser)

    def _delay(self, data: bytes) -> None:
        sequence = int.from_bytes(data[2:4])
        if self._first is None:
            self._first, self._began = sequence, self._loop.time() + _HEAD_START
        number = (sequence - self._first) & 0xFFFF
        for late in self._late.get(number, ()):
            self._loop.call_at(self._began + number * PACKET + late, self._transport.sendto, data, self._browser)


async def _send(peer: Peer, payloads: Sequence[bytes]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, payload in enumerate(payloads):
        await asyncio.sleep(began + number * PACKET - loop.time())
        peer.media.send(payload, number * FRAME_SIZE)


async def _answer(peer: Peer, offer: str, network: Network, packets: int, seed: int) -> tuple[str, Any]:
    """An answer whose only candidate is a relay's; the browser's own candidates are kept from the server."""
    lines = [line for line in offer.splitlines() if not line.startswith("a=candidate")]
    answer = (await peer.answer("\r\n".join([*lines, ""]))).splitlines()
    candidate = next(line for line in answer if line.startswith("a=candidate"))
    port = candidate.split()[5]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Relay((_ADDRESS, int(port)), network, packets, seed), local_addr=(_ADDRESS, 0)
    )
    relayed = candidate.replace(f" {port} ", f" {transport.get_extra_info('sockname')[1]} ")
    answer = [relayed if line == candidate else line for line in answer if "a=end-of-candidates" not in line]
    return "\r\n".join([*answer, ""]), transport


async def _record(page: Page, payloads: Sequence[bytes], network: Network, seed: int) -> tuple[Signal, dict[str, Any]]:
    await page.route(_PAGE, lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    await page.goto(_PAGE)
    connected = asyncio.Event()
    peer = Peer(Ice([_ADDRESS]), "sendonly")
    peer._pc.on("connectionstatechange", lambda: peer._pc.connectionState == "connected" and connected.set())
    answer, relay = await _answer(peer, await page.evaluate(_CONNECT), network, len(payloads), seed)
    try:
        await page.evaluate(_ANSWER, answer)
        async with asyncio.timeout(10):
            await connected.wait()
        await asyncio.sleep(_TAIL)
        await _send(peer, payloads)
        statistics = await page.evaluate(_STATISTICS)
        await asyncio.sleep(_TAIL)
        samples = np.frombuffer(base64.b64decode(await page.evaluate(_RECORDING)), np.float32)
    finally:
        await peer.close()
        relay.close()
    return samples, statistics


def _played(signal: Signal, samples: Signal, statistics: dict[str, Any]) -> Played:
    """Cuts the recording to where the stream began, as far as the sound tells."""
    start, size = round(WARM_UP * SAMPLE_RATE), round(CHUNK * SAMPLE_RATE)
    lag = int(np.argmax(correlate(samples, signal[start : start + size], "valid", "fft"))) - start
    margin = round(0.5 * SAMPLE_RATE)
    begun = np.pad(samples, (max(0, margin - lag), 0))[max(0, lag - margin) :]
    begun = np.pad(begun, (0, max(0, len(signal) - len(begun))))
    concealed = statistics["concealedSamples"] / statistics["totalSamplesReceived"]
    return Played(begun, concealed, statistics["jitterBufferDelay"] / statistics["jitterBufferEmittedCount"])


async def chromium(signal: Signal, payloads: list[bytes], traces: list[tuple[Network, int]]) -> list[Played]:
    """What Chromium plays out of each trace: a network and a seed."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def turn(browser: Browser, network: Network, seed: int) -> Played:
        async with turns:
            page = await browser.new_page()
            samples, statistics = await _record(page, payloads, network, seed)
            await page.close()
            return _played(signal, samples, statistics)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        played = await asyncio.gather(*(turn(browser, *trace) for trace in traces))
        await browser.close()
    return list(played)
