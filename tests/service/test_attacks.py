"""Attacked on purpose: whatever a stranger, a participant or a listener sends, the others are served as before."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, SCTP_DATA_LAST_FRAG, DataChunk, tsn_plus_one

from audiomixer.auth.tokens import mint
from audiomixer.service.http import connections, negotiation
from audiomixer.service.resources.callbacks import signature
from audiomixer.webrtc import connection
from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.peer import Peer
from tests.rooms.client import Client, Microphone
from tests.service.api import Api, running
from tests.service.receiver import receiving
from tests.webrtc.test_offers import OPUS, VIDEOS, offer, section

SDP = {"Content-Type": "application/sdp"}
HELD_UP = 0.25
"""Seconds that the event loop may be held up by a request, on a machine that others use as well."""


@contextlib.asynccontextmanager
async def undisturbed() -> AsyncIterator[None]:
    """The event loop goes on turning."""
    longest, loop = 0.0, asyncio.get_running_loop()

    async def watch() -> None:
        nonlocal longest
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            longest = max(longest, loop.time() - before - 0.01)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    yield
    watching.cancel()
    assert longest < HELD_UP


async def test_a_body_is_not_parsed_before_it_is_known_whose_it_is(api: Api) -> None:
    """Multipart in a codec whose decoding takes the square of its length."""
    field = b'--x\r\nContent-Disposition: form-data; name="UniqueName"\r\n\r\n' + b"a-" * 60_000 + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=punycode"}
    extended = {"Content-Type": "multipart/form-data; boundary=x; charset*=punycode"}
    async with httpx.AsyncClient() as stranger, undisturbed():
        answers = [await stranger.post(f"{api.url}/v1/Rooms", headers=headers, content=field) for _ in range(7)]
        refused = [await api.client.post(f"{api.url}/v1/Rooms", headers=h, content=field) for h in (headers, extended)]
        nobody = await stranger.post(
            f"{api.url}/v1/Rooms", headers={"Authorization": "Basic é".encode()}, data={"a": "b"}
        )
    assert {answer.status_code for answer in [*answers, nobody]} == {401}
    for answer in refused:
        assert answer.status_code == 400
        assert answer.json()["message"] == "Content-Type: expected charset=utf-8, got punycode"


async def test_a_form_that_was_cut_off_is_none(api: Api) -> None:
    whole = b'--x\r\nContent-Disposition: form-data; name="UniqueName"\r\n\r\nshow\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    cut = await api.client.post(f"{api.url}/v1/Rooms", headers=headers, content=whole[:-20])
    assert cut.status_code == 400
    assert "ends with its boundary" in cut.json()["message"]
    made = await api.client.post(f"{api.url}/v1/Rooms", headers=headers, content=whole)
    assert (made.status_code, made.json()["unique_name"]) == (201, "show")


async def test_a_misspelt_parameter_is_not_passed_over(api: Api) -> None:
    assert (await api.post("Rooms", 400, UniqueNme="show"))["message"] == "UniqueNme: expected UniqueName"
    assert (await api.post("Rooms", UniqueName="show", RecordParticipants="1"))["unique_name"] == "show"


async def test_offers_of_hundreds_of_sections_hold_up_nobody(api: Api) -> None:
    large = offer(section("audio", "0", OPUS), *(VIDEOS["VP9"].replace("mid:1", f"mid:{n}") for n in range(1, 300)))
    large = re.sub(r"a=(ice|finger|setup)[^\r]*\r\n", "", large)[:60_000]
    headers = SDP | {"Authorization": f"Bearer {api.token('eve')}"}
    async with httpx.AsyncClient(headers=headers) as client, undisturbed():
        for _ in range(20):
            answer = await client.post(api.whip("lounge"), content=large)
            assert answer.status_code == 400
            assert "expected at most 16 sections" in answer.json()["message"]


@pytest.mark.local
@pytest.mark.parametrize("whole", [False, True])
async def test_who_sends_messages_without_end_is_ended_and_disturbs_nobody(api: Api, whole: bool) -> None:
    """A listener sends one by its data channel, in pieces, or whole ones, each in a stream of its own."""
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    url = await api.playback_url(streamer)
    async with Client(f"{api.url}/whep/{streamer}?{url.partition('?')[2]}") as listener:
        async with asyncio.timeout(10):
            while not listener.payloads:
                await asyncio.sleep(0.05)
        sctp: Any = listener.pc.sctp
        async with undisturbed():
            for n in range(2000):
                first = SCTP_DATA_FIRST_FRAG if whole or n == 0 else 0
                chunk = DataChunk(flags=first | (SCTP_DATA_LAST_FRAG if whole else 0))
                stream = n if whole else 1
                chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol = sctp._local_tsn, stream, 0, 51
                chunk.user_data = bytes(1 if whole else 1100)
                sctp._local_tsn = tsn_plus_one(sctp._local_tsn)
                with contextlib.suppress(ConnectionError):
                    await sctp._send_chunk(chunk)
                await asyncio.sleep(0.0003)
        served = api.service.streams.get(streamer)
        assert served
        async with asyncio.timeout(10):
            while served.whep.listeners:
                await asyncio.sleep(0.05)


async def test_forged_alerts_from_elsewhere_prevent_no_join(api: Api) -> None:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver(Microphone(440), direction="sendonly")
    await pc.setLocalDescription(await pc.createOffer())
    headers = SDP | {"Authorization": f"Bearer {api.token('alice')}"}
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.post(api.whip("lounge"), content=pc.localDescription.sdp)
    ports = {int(port) for port in re.findall(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) ", answer.text)}
    assert ports
    alert = bytes.fromhex("15fefd000000000000000000020228")  # fatal, handshake failure; in the clear

    async def spray() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(300):
                for port in ports:
                    stranger.sendto(alert, ("127.0.0.1", port))
                await asyncio.sleep(0.005)

    spraying = asyncio.create_task(spray())
    await pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    async with asyncio.timeout(5):
        while pc.connectionState != "connected":
            await asyncio.sleep(0.02)
    spraying.cancel()
    await pc.close()


@pytest.mark.local
async def test_who_only_asks_to_listen_takes_few_places_and_not_for_long(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one token, from one address, five at a time here, who are given up after 2 s; the others are served."""
    monkeypatch.setattr(negotiation, "_MOST_CONNECTING", 5)
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 2.0)
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    url = f"{api.url}/whep/{streamer}?{(await api.playback_url(streamer)).partition('?')[2]}"
    peer = Peer(LOOPBACK, "recvonly")
    asked = await peer.offer()
    await peer.close()
    async with httpx.AsyncClient() as http, Client(url), undisturbed():
        await asyncio.sleep(1)  # Until that one has come about.
        answers = [await http.post(url, content=asked, headers=SDP) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [201] * 5 + [429] * 2
        await asyncio.sleep(4)
        assert (await http.post(url, content=asked, headers=SDP)).status_code == 201


async def test_connections_that_say_nothing_are_closed_and_the_service_is_reachable(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SAYING", 1.0)
    address = api.url.removeprefix("http://").split(":")
    opened = [socket.create_connection((address[0], int(address[1]))) for _ in range(300)]
    for half in opened[::2]:
        half.sendall(b"GET / HTTP/1.1\r\nHost: ")
    began = time.monotonic()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{api.url}/healthz")).status_code == 200
    assert time.monotonic() - began < 1
    await asyncio.sleep(1.5)
    async with asyncio.timeout(5):
        while connections.Connection.held.total() > 3:
            await asyncio.sleep(0.05)
    for one in opened:
        one.close()


async def test_whoever_asks_for_a_websocket_is_answered_and_keeps_no_place(api: Api) -> None:
    address = api.url.removeprefix("http://").split(":")
    before = connections.Connection.held.total()
    ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    for _ in range(20):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(ask + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 ")
        writer.close()
    async with asyncio.timeout(5):
        while connections.Connection.held.total() > before:
            await asyncio.sleep(0.05)


async def test_a_body_that_never_ends_keeps_no_connection_that_was_answered(api: Api) -> None:
    address = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(address[0], int(address[1]))
    writer.write(b"POST /v1/Rooms HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\na")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    async with asyncio.timeout(2):
        await reader.read()
    writer.close()


@pytest.mark.parametrize("room", [7, ["other"], False, {"name": "other"}])
async def test_a_room_that_is_no_name_opens_none(api: Api, room: object) -> None:
    settings = api.settings
    token = mint(
        settings.api_secret,
        "eve",
        room,  # type: ignore[arg-type]
        issuer=settings.api_key,
        account_sid=settings.account_sid,
    )
    async with httpx.AsyncClient() as client:
        headers = SDP | {"Authorization": f"Bearer {token}"}
        answer = await client.post(api.whip("lounge"), headers=headers, content=offer(section("audio", "0", OPUS)))
    assert answer.status_code == 401
    assert "grants.video.room" in answer.json()["message"]


async def test_metrics_are_for_who_has_the_credentials(api: Api) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{api.url}/metrics")).status_code == 401
    assert (await api.client.get(f"{api.url}/metrics")).status_code == 200


@pytest.mark.parametrize("path", ["/a%2Fb", "/x%3Fy=1", "/p%23q?z=%20", "/café", ""])
async def test_a_callback_goes_to_the_url_that_was_given(tmp_path: Path, path: str) -> None:
    async with receiving() as receiver, running(tmp_path) as api:
        await api.streamer(StatusCallback=receiver.url + path)
        await receiver.until(1)
        told = receiver.told[0]
        assert told.url == receiver.url + (path or "/").replace("é", "%C3%A9")
        query = dict(parse_qsl(urlsplit(told.url).query, keep_blank_values=True))
        form = {name: value for name, value in told.parameters.items() if name not in query}
        assert told.signature == signature(api.settings.auth_token, told.url, form)


@pytest.mark.local
async def test_a_room_whose_mix_panics_ends_with_a_reason_and_the_others_go_on(api: Api) -> None:
    streamers = [await api.streamer(), await api.streamer()]
    broken = await api.processor("broken", streamers[0])
    whole = await api.processor("whole", streamers[1])
    room = api.service.streams.rooms.get("broken")
    assert room
    room.bus.mixer._break_down()
    async with asyncio.timeout(20):
        while (ended := await api.get(f"MediaProcessors/{broken['sid']}"))["status"] == "started":
            await asyncio.sleep(0.2)
    assert (ended["status"], ended["ended_reason"]) == ("failed", "internal-service-error")
    assert (await api.get(f"MediaProcessors/{whole['sid']}"))["status"] == "started"
    stream = api.service.streams.get(streamers[1])
    assert stream
    before = stream.mixer.time
    await asyncio.sleep(0.5)
    assert stream.mixer.time > before + 0.3
