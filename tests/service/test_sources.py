"""What a client has the service play: files from a web server, streams, and servers that lie, stall, or lead astray."""

import asyncio
import contextlib
import functools
import gzip
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.files import write
from tests.rooms.client import Client, Microphone
from tests.service.api import Api
from tests.service.receiver import receiving
from tests.service.test_media_processors import payloads
from tests.signals import sine


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files, without a word on the console; and a few paths at which something is wrong."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/inside.wav":
            self.send_response(302)
            self.send_header("Location", "http://10.0.0.1/jingle.wav")
            self.end_headers()
        elif self.path == "/stalls.wav":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(Path(self.directory, "jingle.wav").read_bytes()[:200_000])
            time.sleep(60)
        elif self.path == "/breaks.wav":
            self.send_response(200)
            self.send_header("Content-Length", "288078")
            self.end_headers()
            self.wfile.write(Path(self.directory, "jingle.wav").read_bytes()[:100_000])
            time.sleep(1)
        elif self.path == "/drips.wav":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
                for _ in range(100):
                    self.wfile.write(b"a")
                    time.sleep(0.3)
        elif self.path == "/bomb.wav":
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(gzip.compress(bytes(1 << 24)))
        elif self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/jingle.wav")
            self.end_headers()
        else:
            with contextlib.suppress(ConnectionError):
                super().do_GET()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server."""
    folder = tmp_path / "web"
    folder.mkdir()
    write(folder / "jingle.wav", sine(1000, 0.2, 3))
    write(folder / "short.m4a", sine(1000, 0.2, 1))
    (folder / "lie.mp3").write_text("<html>This is no music.</html>" * 1000)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n")
    (folder / "list.mp3").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


async def identities(api: Api, streamer: str) -> dict[str, int]:
    told: Any = (await payloads(api, streamer, 2))[-1]["p"]
    return {identity: volume["v"] for identity, volume in told.items()}


async def test_a_jingle_is_a_participant_until_it_ends(api: Api, files: str) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    began = time.monotonic()
    made = await api.post("Rooms/lounge/Sources", Url=f"{files}/jingle.wav", Gain=-6, Duck=-12)
    assert time.monotonic() - began < 1, "0.3 s, on a machine that is not busy"
    assert made["sid"].startswith("SO")
    assert (made["participant_identity"], made["status"], made["duration"]) == ("jingle", "playing", 3)
    assert (made["gain_db"], made["duck_db"], made["loop"]) == (-6, -12, False)
    assert made["source_url"] == f"{files}/jingle.wav"
    assert [source["sid"] for source in (await api.get("Rooms/lounge/Sources"))["sources"]] == [made["sid"]]
    await api.settle()
    jingle = await api.get("Rooms/lounge/Participants/jingle")
    assert (jingle["status"], jingle["codec"]) == ("connected", "pcm")
    assert (await identities(api, streamer))["jingle"] > 1000
    await asyncio.sleep(2.5)
    assert await identities(api, streamer) == {}
    await api.settle()
    assert (await api.get("Rooms/lounge/Participants/jingle"))["status"] == "disconnected"
    ended = await api.get(f"Rooms/lounge/Sources/{made['sid']}")
    assert (ended["status"], ended["error"]) == ("ended", None)
    assert (await api.get("Rooms/lounge/Sources"))["sources"] == []


async def test_music_is_paused_moved_turned_down_and_ended(api: Api, files: str) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    made = await api.post("Rooms/lounge/Sources", Url=f"{files}/short.m4a", Loop="true", Identity="música")
    url = f"Rooms/lounge/Sources/{made['sid']}"
    loud = (await identities(api, streamer))["música"]
    assert loud > 1000
    paused = await api.post(url, 200, Status="paused")
    assert paused["status"] == "paused"
    await asyncio.sleep(0.3)
    assert (await identities(api, streamer))["música"] < 10
    moved = await api.post(url, 200, Status="playing", Position=0.5)
    assert (moved["status"], moved["position"]) == ("playing", 0.5)
    assert (await api.post(url, 200, Position=7.25))["position"] == pytest.approx(0.25, abs=0.2), "it goes round"
    await api.post(url, 200, Gain=-20)
    await asyncio.sleep(0.2)
    assert (await identities(api, streamer))["música"] == pytest.approx(loud / 10, rel=0.1)
    await api.post(url, 200, Gain=0)
    await api.post("Rooms/lounge/Participants/música", 200, Gain=-20)
    assert (await identities(api, streamer))["música"] == pytest.approx(loud / 10, rel=0.1)
    assert (await api.post(url, 200, Status="ended"))["status"] == "ended"
    assert await identities(api, streamer) == {}
    assert (await api.post(url, 200, Status="playing"))["status"] == "ended"
    again = await api.post("Rooms/lounge/Sources", Url=f"{files}/jingle.wav")
    await api.post("Rooms/lounge/Participants/jingle", 200, Status="disconnected")
    assert (await api.get(f"Rooms/lounge/Sources/{again['sid']}"))["status"] == "ended"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere.wav", "Url: the server answered 404"),
        ("/lie.mp3", "Url: it is no audio of a kind that can be played"),
        ("/list.m3u8", "Url: "),
        ("/list.mp3", "Url: "),
        ("/empty.wav", "Url: "),
        ("/bomb.wav", "Url: the server compressed it"),
        ("/inside.wav", "Url: expected a host with a public address"),
    ],
)
async def test_what_cannot_be_played(api: Api, files: str, path: str, message: str) -> None:
    await api.processor("lounge", await api.streamer())
    refusal = await api.post("Rooms/lounge/Sources", 400, Url=files + path)
    assert refusal["message"].startswith(message)
    assert (await api.get("Rooms/lounge/Sources"))["sources"] == []


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "Url"),
        ({"Url": "file:///etc/passwd"}, "Url: expected a URL of http://, https://, rtmp://"),
        ({"Url": "http://10.0.0.1/jingle.wav"}, "Url: expected a host with a public address"),
        ({"Url": "concat:a|b"}, "Url: expected a URL"),
        ({"Url": "http://127.0.0.1/a.wav", "Gain": "13"}, "Gain"),
        ({"Url": "http://127.0.0.1/a.wav", "Duck": "3"}, "Duck"),
        ({"Url": "http://127.0.0.1/a.wav", "Identity": "\u2800"}, "identity"),
    ],
)
async def test_orders_that_are_none(api: Api, form: dict[str, str], message: str) -> None:
    await api.processor("lounge", await api.streamer())
    assert message in (await api.post("Rooms/lounge/Sources", 400, **form))["message"]


async def test_nobody_plays_into_an_empty_room(api: Api, files: str) -> None:
    await api.post("Rooms", UniqueName="lounge")
    refusal = await api.post("Rooms/lounge/Sources", 409, Url=f"{files}/jingle.wav")
    assert refusal["message"] == "room: nobody is in 'lounge'"


async def test_a_server_that_stalls_ends_the_source_and_nothing_else(api: Api, files: str) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    async with Client(api.whip("lounge"), Microphone(500), token=api.token("alice")):
        await api.post("Rooms/lounge/Sources", Url=f"{files}/stalls.wav")
        assert "stalls" in await identities(api, streamer)
        async with asyncio.timeout(25):
            while "stalls" in (heard := await identities(api, streamer)):
                await asyncio.sleep(0.5)
        assert heard["alice"] > 1000


async def test_callbacks_tell_of_its_end(api: Api, files: str) -> None:
    async with receiving() as receiver:
        await api.post("Rooms", UniqueName="lounge", StatusCallback=receiver.url)
        await api.processor("lounge", await api.streamer())
        await api.post("Rooms/lounge/Sources", Url=f"{files}/short.m4a")
        await receiver.until(4)
        told = receiver.told[3]
        assert (told.event, told.parameters["ParticipantIdentity"]) == ("participant-disconnected", "short")


async def test_a_download_that_breaks_off_is_the_end_also_of_a_loop(api: Api, files: str) -> None:
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    made = await api.post("Rooms/lounge/Sources", Url=f"{files}/breaks.wav", Loop="true")
    refusal = await api.post(f"Rooms/lounge/Sources/{made['sid']}", 400, Position=1)
    assert "how long it is is not known" in refusal["message"]
    async with asyncio.timeout(8):
        while (await api.get("Rooms/lounge/Sources"))["sources"]:
            await asyncio.sleep(0.1)
    assert "without sending complete" in (await api.get(f"Rooms/lounge/Sources/{made['sid']}"))["error"]


async def test_a_redirect_may_be_relative(api: Api, files: str) -> None:
    await api.processor("lounge", await api.streamer())
    assert (await api.post("Rooms/lounge/Sources", Url=f"{files}/elsewhere"))["status"] == "playing"


async def test_a_server_that_drips_holds_up_nobody_else(api: Api, files: str) -> None:
    """Twelve of them at once, more than are opened at a time."""
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    opening = [asyncio.create_task(api.post("Rooms/lounge/Sources", 400, Url=f"{files}/drips.wav")) for _ in range(12)]
    await asyncio.sleep(1)
    began = time.monotonic()
    other = await api.processor("other", await api.streamer())
    await api.post(f"MediaProcessors/{other['sid']}", 200, Status="ended")
    assert time.monotonic() - began < 2
    async with asyncio.timeout(30):
        await asyncio.gather(*opening)
    assert (await api.get("Rooms/lounge/Participants", Status="connected"))["participants"][0]["codec"] is None
    async with asyncio.timeout(15):
        await api.post("Rooms/lounge/Sources", Url=f"{files}/jingle.wav")
