"""People who come, go and are muted at random: each is heard under the right name, and nothing is left of them."""

import asyncio
import gc
import random
import time
from collections.abc import Iterator

import numpy as np
import pytest

from audiomixer import AudioMixer
from audiomixer.clock.bus import process_pacer
from tests.rooms.elsewhere import AMPLITUDE, Ear, Server, new_room
from tests.rooms.janus_server import janus
from tests.rooms.livekit_server import livekit
from tests.rooms.stage import Stage, stage

_LONG = 120
_WINDOW = 25
"""Frames that are looked at together: half a second."""
_PAUSE = 0.5
"""Seconds between two looks, which are work as well."""


@pytest.fixture(scope="module", params=[livekit, janus], ids=["livekit", "janus"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with request.param(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(autouse=True)
def _loopback() -> None:
    """The servers' addresses are not loopback."""


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    """As in the commands, the collector leaves alone what was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def tone_of(number: int) -> float:
    """As far apart as that what is made up for lost packets is not taken for another's."""
    return 300.0 + 120 * number


def loudest(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * 48_000 / len(samples)


def tasks() -> list[str]:
    """Those of the package."""
    gc.collect()
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    return [str(coroutine) for coroutine in coroutines if "/audiomixer/" in coroutine.cr_code.co_filename]


async def judge(mixer: AudioMixer, wrong: list[str]) -> None:
    """Notes who is heard with another's tone, half a second of each; identities are numbers."""
    while True:
        frames: dict[str, list[np.ndarray]] = {}
        async for frame in mixer.participant_frames():
            kept = frames.setdefault(frame.identity, [])
            kept.append(frame.samples)
            if len(kept) == _WINDOW:
                break
        for identity, pieces in frames.items():
            heard = np.concatenate(pieces)
            level = np.sqrt(np.mean(heard**2))
            if level > AMPLITUDE / 4:
                frequency = await asyncio.to_thread(loudest, heard)
                if abs(frequency - tone_of(int(identity))) > 60:
                    wrong.append(f"{mixer.time:.1f} s: {identity} at {frequency:.0f} Hz, {level:.3f}")
        await asyncio.sleep(_PAUSE)


@pytest.mark.timeout(1200)
async def test_nobody_is_taken_for_another_and_nothing_is_left(server: Server, pytestconfig: pytest.Config) -> None:
    seconds = pytestconfig.getoption("--churn")
    most, changes = (50, round(seconds)) if seconds >= _LONG else (8, 25)
    chance, room = random.Random(3), new_room()
    here, muted = set[int](), set[int]()

    async def change(people: Stage) -> None:
        what = chance.random()
        absent = [number for number in range(most) if number not in here]
        if absent and (what < 0.45 or len(here) < most // 3):
            number = chance.choice(absent)
            here.add(number)
            await people.ask(str(number), server.one_of_many, room, str(number), tone_of(number))
            await people.ask(str(number), "join")
        elif what < 0.65:
            number = chance.choice(sorted(here))
            here.discard(number)
            muted.discard(number)
            await people.ask(str(number), "leave")
        else:
            number = chance.choice(sorted(here))
            await people.ask(str(number), "unmute" if number in muted else "mute")
            muted.symmetric_difference_update({number})

    mixer = AudioMixer(server.room(room), ice=server.ice)
    ear, wrong = Ear(mixer), list[str]()
    async with stage() as people, mixer:
        judging = asyncio.create_task(judge(mixer, wrong))
        await asyncio.gather(*(change(people) for _ in range(most // 3)))
        began, late, rounds = time.monotonic(), process_pacer().late, process_pacer().rounds
        for n in range(changes):
            await asyncio.sleep(max(0.0, began + n * seconds / changes - time.monotonic()))
            await change(people)
        late, rounds = process_pacer().late - late, process_pacer().rounds - rounds
        speaking = {str(number) for number in here - muted}
        told = {str(number) for number in here}
        await ear.until(lambda: ear.volumes.keys() == told, 3)
        for who in sorted(told):
            await ear.until(lambda who=who: (ear.volumes[who] > 1000) == (who in speaking), 5, f"{who}, {speaking}")
        for number in here:
            await people.ask(str(number), "leave")
        await ear.until(lambda: ear.volumes == {}, 5)
        assert not judging.done()
        judging.cancel()
        assert mixer.room.bus.mixer.identities == []
    await ear.close()
    deadline = time.monotonic() + 10  # Who leaves while connecting is forgotten after some seconds.
    while (left := tasks()) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    print(f"\n{changes} changes among {most} in {seconds:.0f} s, {late} of {rounds} ticks late", flush=True)
    assert left == []
    assert not wrong, "\n".join(wrong)
    assert late <= 0.01 * rounds, "what else this machine does is not forbidden"
