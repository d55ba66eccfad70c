"""The metadata in files of its own."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audiomixer.outputs.base import OutputError
from audiomixer.outputs.text import TextOutput

PAYLOADS = ['{"s": 1, "p": {"alice": {"v": 300}}}', "an application's own --> text\n\n in lines"]


async def written(path: Path) -> str:
    output = TextOutput(str(path))
    await output.start()
    output.begin(datetime.now(UTC))
    output.write_metadata(PAYLOADS[0], 0.5)
    output.write_metadata(PAYLOADS[1], 3661.25)
    await output.stop()
    assert output.error is None
    return path.read_text()


async def test_json_lines(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (await written(tmp_path / "show.jsonl")).splitlines()]
    assert lines == [
        {"time": 0.5, "metadata": {"s": 1, "p": {"alice": {"v": 300}}}},
        {"time": 3661.25, "metadata": PAYLOADS[1]},
    ]


async def test_webvtt(tmp_path: Path) -> None:
    assert await written(tmp_path / "show.vtt") == (
        "WEBVTT\n\n"
        '00:00:00.000 --> 00:00:00.500\n{"s": 1, "p": {"alice": {"v": 300}}}\n\n'
        "01:01:00.750 --> 01:01:01.250\nan application's own -> text\n in lines\n\n"
    )


async def test_a_path_that_cannot_be_written() -> None:
    with pytest.raises(OutputError, match=r"^output: cannot write /nowhere/show\.vtt: No such file"):
        await TextOutput("/nowhere/show.vtt").start()
