"""Whatever comes in: an answer that says what was expected, and streams that run undisturbed."""

import asyncio
import json
import random
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from audiomixer.service.resources.store import MediaProcessor
from tests.service.api import Api, running
from tests.service.test_media_processors import payloads

GARBAGE = [
    b"",
    b"=&=&&&%",
    b"Status=ended" + b"&x=y" * 2000,
    b"\xff\xfe\x00\x01",
    b"%ff%fe=%c3%28",
    b"Extension=%00&ExtensionContext=%00",
    b'Extension="&ExtensionContext={"room":{"name":null},"outputs":[null]}',
    b'Extension=audio-mixer-v2&ExtensionContext={"room":{"name":"x"},"outputs":"VJ"}',
    b"Extension=audio-mixer-v2&ExtensionContext=" + b"[" * 5000,
    b'Extension=audio-mixer-v2&ExtensionContext={"room":{"name":"\\ud800"},"outputs":["VJ"]}',
    b"MaxDuration=99999999999999999999999999999999",
    b"Ttl=1e3&UniqueName=" + b"a" * 5000,
    b"Metadata=" + b"\xf0\x9f\x98\x80" * 400,
    b"x" * 10_000_000,
]
TYPES = [
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded; charset=utf-16",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/json",
    "application/sdp",
    "text/plain",
    "",
]
PATHS = [
    "v1/MediaProcessors",
    "v1/MediaProcessors/ZX" + "0" * 32,
    "v1/MediaProcessors/%00",
    "v1/PlayerStreamers",
    "v1/PlayerStreamers/VJ1",
    "v1/PlayerStreamers/VJ" + "0" * 32 + "/PlaybackGrant",
    "v1/PlayerStreamers/VJ" + "0" * 32 + "/TimedMetadata",
    "v1/Rooms",
    "v1/Rooms/%ff%00",
    "v1/Rooms/x/Participants?PageSize=-1&Page=9999999999999999999&PageToken=PARM",
    "v1/Rooms?Order=up&PageToken=PARM" + "0" * 32,
    "v1/nothing",
    "v1",
    "whip/%00",
    "whip/x?identity=%f0",
    "whep/VJ1",
    "hls/VJ1/index.m3u8?token=%00",
    "hls/../../etc/passwd",
    "rooms/x/volumes?token=x",
]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"]


async def throw(api: Api, number: int, seed: int) -> None:
    """Garbage, as many requests of it; every answer is told apart from a failure of the server."""
    rng = random.Random(seed)
    bodies = [json.dumps({"message": "x"}).encode(), *GARBAGE]

    async def one() -> None:
        headers = {"Content-Type": kind} if (kind := rng.choice(TYPES)) else {}
        if rng.random() < 0.1:
            headers["Authorization"] = rng.choice(["Basic", "Basic !!", "Basic /w==", "Bearer " + "x" * 5000, ":"])
        request = api.client.build_request(
            rng.choice(METHODS), f"{api.url}/{rng.choice(PATHS)}", headers=headers, content=rng.choice(bodies)
        )
        try:
            response = await api.client.send(request)
        except httpx.TransportError:
            return  # It closes the connection while a long body is still coming.
        assert response.status_code < 500, (request.method, request.url, response.text)
        if response.status_code >= 400 and request.method != "HEAD" and response.content:
            assert response.json()["message"], (request.method, request.url)

    for _ in range(number // 10):
        await asyncio.gather(*(one() for _ in range(10)))


async def test_garbage_disturbs_nobody(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A stream runs all the while: its payloads come without a gap, and nothing is left when it is over."""
    number = pytestconfig.getoption("--garbage")
    async with running(tmp_path, requests_per_second=1e6) as api:
        streamer = await api.streamer()
        await api.processor("lounge", streamer)
        before = len(asyncio.all_tasks())
        following = asyncio.create_task(payloads(api, streamer, 8))
        await throw(api, number, seed=1)
        numbers = [int(str(payload["s"])) for payload in await following]
        assert numbers == list(range(numbers[0], numbers[0] + 8))
        await asyncio.sleep(0.3)
        assert len(asyncio.all_tasks()) <= before + 1
        assert len((await api.get("MediaProcessors"))["media_processors"]) == 1


async def test_the_description_is_true(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Schemathesis makes requests of the description, good and bad, and holds the answers against it."""
    async with running(tmp_path, requests_per_second=1e6, max_rooms=10_000, max_player_streamers=10_000) as api:
        settings = api.settings
        arguments = [
            *("run", f"{api.url}/v1/openapi.json", "--url", f"{api.url}/v1"),
            *("--auth", f"{settings.account_sid}:{settings.auth_token}", "--phases", "examples,coverage,fuzzing"),
            # What a schema cannot say, such as that a host has to exist, may be refused; what is unknown is ignored.
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance,negative_data_rejection", "--seed", "1"),
            *("--max-examples", str(pytestconfig.getoption("--examples")), "--continue-on-failure", "--no-color"),
        ]
        program = str(Path(sys.executable).with_name("schemathesis"))
        process = await asyncio.create_subprocess_exec(program, *arguments, cwd=tmp_path, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        assert process.returncode == 0, out.decode()[-8000:] + err.decode()


async def test_too_much_at_once(tmp_path: Path) -> None:
    """Ten requests a second, a hundred at once; players that fetch segments are not counted."""
    async with running(tmp_path, requests_per_second=10) as api:
        answers = [await api.client.get(f"{api.url}/v1/Rooms") for _ in range(120)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 5 <= len(refused) <= 20
        assert refused[0].json()["code"] == 20429
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert (await api.client.get(f"{api.url}/healthz")).status_code == 200
        await asyncio.sleep(0.3)
        assert (await api.client.get(f"{api.url}/v1/Rooms")).status_code == 200


async def test_proxies_speak_for_others_if_they_are_known(tmp_path: Path) -> None:
    async def many(api: Api, address: str) -> set[int]:
        headers = {"X-Forwarded-For": f"spoofed, {address}"}
        return {(await api.client.get(f"{api.url}/v1/Rooms", headers=headers)).status_code for _ in range(12)}

    async with running(tmp_path / "a", requests_per_second=0.2, proxies=["127.0.0.1"]) as api:
        assert await many(api, "192.0.2.1") == {200, 429}
        assert 200 in await many(api, "192.0.2.2")
    async with running(tmp_path / "b", requests_per_second=0.2) as api:
        await many(api, "192.0.2.1")
        assert await many(api, "192.0.2.2") == {429}


async def test_metrics(api: Api) -> None:
    before = await api.metrics()
    assert before["audiomixer_media_processors"] == 0
    await api.processor("lounge", await api.streamer())
    await asyncio.sleep(1)
    after = await api.metrics()
    assert after["audiomixer_media_processors"] == 1
    assert (after["audiomixer_rooms"], after["audiomixer_participants"]) == (1, 1)
    assert after["audiomixer_ticks_total"] - before.get("audiomixer_ticks_total", 0) > 15
    assert 'audiomixer_packets_total{fate="lost"}' in after


async def test_forms_of_other_sites_are_refused(api: Api) -> None:
    """A browser that knows the credentials sends them with any page's form."""
    url = f"{api.url}/v1/PlayerStreamers"
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert (await api.client.post(url, headers=headers)).status_code == 403
    for headers in ({"Sec-Fetch-Site": "same-origin", "Origin": api.url}, {}):
        assert (await api.client.post(url, headers=headers)).status_code == 201


async def test_a_database_that_goes_away_in_the_middle_leaves_nothing_running(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is away while a MediaProcessor begins; when it is back, that has failed, and the stream with it."""
    monkeypatch.setattr("audiomixer.service.resources.processor_lifecycle._AGAIN", 0.2)
    streamer, store = await api.streamer(), api.service.store
    run, calls = store.run, 0

    async def sometimes(work: Any) -> Any:
        nonlocal calls
        calls += 1
        if 3 <= calls <= 12:
            raise OperationalError("select", {}, Exception("away"))
        return await run(work)

    monkeypatch.setattr(store, "run", sometimes)
    context = json.dumps({"room": {"name": "lounge"}, "outputs": [streamer]})
    form = {"Extension": "audio-mixer-v2", "ExtensionContext": context}
    assert (await api.client.post(f"{api.url}/v1/MediaProcessors", data=form)).status_code in {201, 503}
    async with asyncio.timeout(10):
        while (found := (await run(_processors))) and found[0].status == "started":
            await asyncio.sleep(0.1)
    monkeypatch.setattr(store, "run", run)
    assert (await api.get("MediaProcessors"))["media_processors"][0]["ended_reason"] == "internal-service-error"
    assert api.service.processors.running == 0
    assert (await api.get(f"PlayerStreamers/{streamer}"))["status"] in {"ended", "created"}


def _processors(session: Session) -> list[MediaProcessor]:
    return list(session.scalars(select(MediaProcessor)))


async def test_the_database_is_away(api: Api) -> None:
    """Its answer says so; the streams go on."""
    streamer = await api.streamer()
    await api.processor("lounge", streamer)
    store = api.service.store

    async def away(work: object) -> None:
        raise OperationalError("select", {}, Exception("away"))

    run, store.run = store.run, away  # type: ignore[method-assign, assignment]
    answer = await api.client.get(f"{api.url}/v1/Rooms")
    assert (answer.status_code, answer.json()["code"]) == (503, 20503)
    store.run = run  # type: ignore[method-assign]
    assert await payloads(api, streamer, 1)
