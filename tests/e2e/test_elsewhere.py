"""`audiomixer mix` in rooms elsewhere, as docs/rooms.md has it, with the speakers of the examples."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import av
import pytest

from tests.e2e.command import AUDIOMIXER, run
from tests.rooms.janus_server import ADMIN_KEY, janus
from tests.rooms.livekit_server import KEY, SECRET, livekit

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@contextlib.asynccontextmanager
async def speakers(script: str, *arguments: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(sys.executable, str(EXAMPLES / script), *arguments)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def mixed(room: str, folder: Path, **environment: str) -> tuple[list[dict[str, dict[str, dict[str, int]]]], str]:
    """The payloads of eight seconds, and what is said on stderr."""
    arguments = ["mix", "--room", room, "--output", str(folder / "show.m4a"), "--metadata", "-", "--duration", "8"]
    process = await asyncio.create_subprocess_exec(
        AUDIOMIXER,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    with av.open(str(folder / "show.m4a")) as recording:
        assert (recording.duration or 0) / 1_000_000 == pytest.approx(8, abs=0.2)
    return [json.loads(line) for line in out.decode().splitlines()], err.decode()


async def test_livekit(tmp_path: Path) -> None:
    with livekit(tmp_path) as server:
        async with speakers("livekit_speakers.py", server.url, KEY, SECRET, "show"):
            credentials = {"AUDIOMIXER_LIVEKIT_API_KEY": KEY, "AUDIOMIXER_LIVEKIT_API_SECRET": SECRET}
            payloads, said = await mixed(f"livekit+{server.url}/show", tmp_path, **credentials)
    assert payloads[-1]["p"].keys() == {"alice", "bob", "carol"}
    assert max(volume["v"] for volume in payloads[-1]["p"].values()) > 300
    assert said.splitlines() == [
        "Mixing show; stop with Ctrl-C.",
        f"Wrote 8.0 s to {tmp_path / 'show.m4a'}",
    ]


async def test_janus(tmp_path: Path) -> None:
    with janus(tmp_path) as server:
        await server.create("1234")
        async with speakers("janus_speakers.py", server.url, "1234"):
            payloads, _ = await mixed(f"janus+{server.url}/1234", tmp_path)
    assert payloads[-1]["p"].keys() == {"alice", "bob", "carol"}
    assert max(volume["v"] for volume in payloads[-1]["p"].values()) > 300


@pytest.mark.parametrize(
    ("room", "problem"),
    [
        ("livekit+ws://127.0.0.1:1/show", "room: expected a token, or an api_key and its api_secret"),
        ("livekit+ws://127.0.0.1:1/show?token=x", "room: 'show' cannot be joined: LiveKit is out of reach"),
        (f"janus+ws://127.0.0.1:1/1234?admin_key={ADMIN_KEY}", "room: '1234' cannot be joined: Janus is out of reach"),
        ("livekit+ws://127.0.0.1:1/", "room: expected a name"),
        ("livekit+ws://127.0.0.1:1/show?tokn=x", "room: expected parameters of"),
        ("https://127.0.0.1:1/show", "room: expected local:NAME, livekit+ws(s)://HOST/ROOM or janus+ws(s)://HOST/ROOM"),
    ],
)
async def test_what_cannot_be_joined_is_told_in_a_line(room: str, problem: str) -> None:
    code, out, err = await run("mix", "--room", room, "--output", "x.wav")
    assert code == 2
    assert out == ""
    assert err.startswith(f"audiomixer: {problem}")
    assert len(err.splitlines()) == 1
    assert ADMIN_KEY not in err
    assert not Path("x.wav").exists()
