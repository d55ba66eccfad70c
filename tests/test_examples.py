"""The examples run."""

import asyncio
import importlib.util
import json
import re
import sys
from pathlib import Path

import av
import pytest

from tests.e2e.command import free_port

ROOT = Path(__file__).parent.parent


async def test_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("server", ROOT / "examples" / "server.py")
    assert spec
    assert spec.loader
    server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    monkeypatch.chdir(tmp_path)
    await server.main(free_port(), seconds=2)
    printed = capsys.readouterr().out.splitlines()
    assert "/listen/VJ" in printed[1]
    numbers = [json.loads(line)["s"] for line in printed[2:]]
    # The first payload may come before half a second of the stream: the room was there before the mixer.
    assert numbers in ([0, 1, 2, 3], [0, 1, 2, 3, 4])
    assert (tmp_path / "show.ogg").stat().st_size > 10_000


async def test_the_server_stops_in_order(tmp_path: Path) -> None:
    script = ROOT / "examples" / "server.py"
    code = f"import asyncio, runpy; asyncio.run(runpy.run_path({str(script)!r})['main']({free_port()}))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    while b'"s": 2' not in await process.stdout.readline():
        pass
    process.terminate()
    await process.communicate()
    assert process.returncode == 0
    with av.open(str(tmp_path / "show.ogg")) as recording:
        assert (recording.duration or 0) / 1_000_000 == pytest.approx(2, abs=0.6)


@pytest.mark.parametrize("number", [0, 1])
async def test_the_readme(number: int, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", blocks[number], cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    expected = ["{'alice': 23170, 'bob': -1}", '{"s": 9, "p": {"alice": {"v": 6951}}}']
    assert out.decode().splitlines()[-1] == expected[number]
