"""`audiomixer mix` and `audiomixer token`, as a user would run them."""

import asyncio
import json
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import av
import httpx
import pytest

from tests.e2e.command import free_port, run, running, until_serving
from tests.rooms.client import Client, Microphone

SECRET = "0123456789abcdef0123456789abcdef"


def duration(path: Path) -> float:
    with av.open(str(path)) as container:
        return float((container.duration or 0) / 1_000_000)


async def test_a_room_is_hosted_recorded_and_described(tmp_path: Path) -> None:
    """Somebody joins for a while; the recording lasts as long as was asked, in every file."""
    port = free_port()
    files = [tmp_path / f"show.{suffix}" for suffix in ("m4a", "ogg")]
    metadata = tmp_path / "show.jsonl"
    outputs = [argument for file in files for argument in ("--output", str(file))]
    arguments = ["--room", "local:show", "--port", str(port), "--duration", "6", "--metadata", str(metadata)]
    async with running("mix", *arguments, *outputs, "--level", "--max-speakers", "4") as process:
        await until_serving(port)
        await asyncio.sleep(1)
        async with Client(f"http://127.0.0.1:{port}/whip/show?identity=alice", Microphone(500), hears=False):
            await asyncio.sleep(2)
        _, err = await process.communicate()
        assert process.returncode == 0, err
    assert [duration(file) for file in files] == pytest.approx([6, 6], abs=0.1)
    payloads = [json.loads(line) for line in metadata.read_text().splitlines()]
    assert [payload["s"] for payload in payloads] == list(range(len(payloads)))
    assert len(payloads) == 12
    assert max(payload["p"].get("alice", {"v": 0})["v"] for payload in payloads) > 4000


def test_the_collector_leaves_what_was_imported_alone(tmp_path: Path) -> None:
    """It would stop the mixing threads."""
    arguments = ["mix", "--room", "local:show", "--port", "0", "--duration", "0.5", "--output", str(tmp_path / "a.wav")]
    run_it = f"import gc; from audiomixer.cli import app; app({arguments}, standalone_mode=False)"
    told = subprocess.run(
        [sys.executable, "-c", f"{run_it}; print(gc.get_freeze_count())"], capture_output=True, text=True, check=True
    ).stdout
    assert int(told.splitlines()[-1]) > 50_000


@pytest.mark.timeout(400)
async def test_recordings_survive_kill_9(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Killed at a random moment: every file plays, to within 1 s of it."""
    rng = random.Random(7)
    for number in range(2 * pytestconfig.getoption("--kills")):
        files = [tmp_path / f"{number}.{suffix}" for suffix in ("m4a", "mp3", "ogg", "wav", "mka")]
        outputs = [argument for file in files for argument in ("--output", str(file))]
        async with running("mix", "--room", "local:show", "--port", "0", "--metadata", "-", *outputs) as process:
            assert process.stdout
            await process.stdout.readline()
            await asyncio.sleep(rng.uniform(1, 4))
            process.kill()
            out, _ = await process.communicate()
        lived = 0.5 * (2 + json.loads(out.splitlines()[-1])["s"]) - 0.25
        assert {file.suffix: decoded(file) for file in files} == {
            file.suffix: pytest.approx(lived, abs=1) for file in files
        }


def decoded(path: Path) -> float:
    """Seconds of what can be played of a file."""
    with av.open(str(path)) as container:
        frames = [frame for packet in container.demux(audio=0) for frame in packet.decode()]
    return sum(frame.samples / frame.sample_rate for frame in frames)


async def test_a_room_with_a_secret_takes_tokens_made_by_the_command(tmp_path: Path) -> None:
    port = free_port()
    code, token, _ = await run("token", "--identity", "alice", "--room", "show", "--secret", SECRET)
    assert code == 0
    output = ["--output", str(tmp_path / "show.wav")]
    async with running("mix", "--room", "local:show", "--port", str(port), "--secret", SECRET, *output):
        await until_serving(port)
        url = f"http://127.0.0.1:{port}/whip/show"
        async with Client(url, Microphone(500), token=token.strip()), httpx.AsyncClient() as client:
            rooms = (await client.get(f"http://127.0.0.1:{port}/overview.json")).json()["rooms"]
            assert rooms == [{"name": "show", "identities": ["alice"]}]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["mix", "--room", "zoom:1"], "room: expected local:NAME"),
        (["mix", "--room", "local:a/b"], "room: expected up to 128 printable"),
        (["mix", "--room", "local:a", "--output", "a.flac"], "output: expected *.m4a"),
        (["mix", "--room", "local:a", "--output", "/nowhere/a.wav"], "output: cannot write /nowhere/a.wav"),
        (["mix", "--room", "local:a", "--metadata", "/nowhere/a.jsonl"], "metadata: cannot write /nowhere/a.jsonl"),
        (["mix", "--room", "local:a", "--audio-bitrate", "64"], "audio-bitrate"),
        (["mix", "--room", "local:a", "--max-speakers", "0"], "max-speakers"),
        (["mix"], "--room"),
        (["demo", "--host", "192.0.2.1"], "port: cannot listen on 192.0.2.1:8080"),
        (["demo", "--duration", "soon"], "duration"),
        (["demo", "--port", "70000"], "port"),
        (["demo", "--tls-cert", "/nowhere/a.pem", "--tls-key", "/nowhere/b.pem"], "tls-cert: expected a file"),
        (["serve", "--data", "/dev/null/data"], "data: expected a folder, cannot make /dev/null/data"),
    ],
)
async def test_mistakes_are_told_in_words_with_exit_code_2(arguments: list[str], problem: str) -> None:
    port = [] if "--port" in arguments or "--host" in arguments else ["--port", "0"]
    code, out, err = await run(*arguments, *port)
    assert code == 2
    assert out == ""
    assert problem in err
    assert "Traceback" not in err


async def test_variables_that_are_no_settings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, hint in [
        ("AUDIOMIXER_MEDIAPORT", "AUDIOMIXER_MEDIA_PORT?"),
        ("AUDIOMIXER_ICE_PORTS", "AUDIOMIXER_MEDIA_PORT"),
        ("AUDIOMIXER_PORT", "--port"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(name, "8080")
            code, _, err = await run("demo", "--port", "0")
        assert (code, err.startswith(f"audiomixer: {name}: expected a setting")) == (2, True), err
        assert hint in err


@pytest.mark.parametrize("records", [False, True])
async def test_who_only_prints_ends_with_the_reader(tmp_path: Path, *, records: bool) -> None:
    """As `| head -1` does: the reader goes after the first payload."""
    output = ["--output", str(tmp_path / "show.wav")] if records else []
    async with running("mix", "--room", "local:show", "--port", "0", "--metadata", "-", *output) as process:
        assert process.stdout
        assert process.stderr
        await process.stdout.readline()
        cast("Any", process)._transport.get_pipe_transport(1).close()
        lines = [(await process.stderr.readline()).decode() for _ in range(2 if records else 3)]
        assert ("Nothing is recorded" in lines[1]) is not records
        assert lines[-1].endswith("the mix goes on.\n" if records else "the mix ends.\n")
        if not records:
            async with asyncio.timeout(5):
                assert await process.wait() == 0


async def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = await run("demo", "--port", str(port))
    assert code == 2
    assert err == f"audiomixer: port: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--play", "VJ" + "0" * 32], "play: expected no --secret"),
        (["--play", "show"], "play: expected the SID"),
        (["--room", "a/b"], "room: expected up to 128 printable"),
    ],
)
async def test_no_token_is_printed_that_would_not_do_what_was_asked_for(arguments: list[str], problem: str) -> None:
    code, out, err = await run("token", "--identity", "alice", "--secret", SECRET, *arguments)
    assert (code, out) == (2, "")
    assert problem in err
