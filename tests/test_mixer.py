"""What becomes of an `AudioMixer`'s outputs while others go on."""

import asyncio
import wave
from pathlib import Path

import av
import pytest

from audiomixer import AudioMixer
from audiomixer.outputs.file import FileOutput


async def test_an_output_that_is_dropped_has_all_that_was_mixed(tmp_path: Path) -> None:
    async with AudioMixer("local:show", outputs=[str(tmp_path / "one.wav"), str(tmp_path / "other.wav")]) as mixer:
        await asyncio.sleep(1.07)
        dropped, other = mixer.outputs
        before = mixer.time
        await mixer.drop(dropped)
        after = mixer.time
        assert mixer.working == [other]
        await asyncio.sleep(0.5)
        end = mixer.time
    with wave.open(str(tmp_path / "one.wav")) as one, wave.open(str(tmp_path / "other.wav")) as two:
        assert before <= one.getnframes() / 48_000 <= after
        assert two.getnframes() / 48_000 >= end


async def test_an_encoding_that_fails_is_told_of_and_ends_only_its_own_outputs(tmp_path: Path) -> None:
    bad = FileOutput(str(tmp_path / "bad.ogg"), bitrate=9000)
    mixer = AudioMixer("local:show", outputs=[bad, str(tmp_path / "good.wav")])
    events = mixer.output_events()
    async with mixer:
        async with asyncio.timeout(5):
            event = await anext(events)
        assert (event.name, event.state) == (bad.target, "failed")
        assert bad.error
        assert mixer.working == mixer.outputs[1:]
        end = mixer.time
        assert mixer.left_out == 0
    with wave.open(str(tmp_path / "good.wav")) as good:
        assert good.getnframes() / 48_000 >= end


def test_outputs_are_a_list() -> None:
    with pytest.raises(ValueError, match="outputs: expected a list of them, got 'show.m4a'"):
        AudioMixer("local:show", outputs="show.m4a")


async def test_what_is_added_begins_at_zero_and_writes_no_file_that_another_writes(tmp_path: Path) -> None:
    async with AudioMixer("local:show", outputs=[tmp_path / "one.wav"]) as mixer:
        await asyncio.sleep(1.2)
        with pytest.raises(ValueError, match=r"output: '.*one\.wav' is there already"):
            await mixer.add(str(tmp_path / "." / "one.wav"))
        began = mixer.time
        await mixer.add(tmp_path / "two.ogg")
        await asyncio.sleep(0.5)
        lasted = mixer.time - began
    with av.open(str(tmp_path / "two.ogg")) as container:
        heard = [frame for frame in container.decode(audio=0) if frame.time is not None]
    assert abs(float(heard[0].time or 0)) < 0.1
    assert float(heard[-1].time or 0) == pytest.approx(lasted, abs=0.2)
    with wave.open(str(tmp_path / "one.wav")) as one:
        assert one.getnframes() / 48_000 > 1.5
