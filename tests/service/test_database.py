"""A database that is away, or somebody else's, for real."""

import asyncio
import time
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.rooms.client import Client, Microphone
from tests.service.api import running
from tests.service.postgresql import PostgreSql


async def test_a_database_that_is_away_takes_no_listener_anything(tmp_path: Path, server: PostgreSql) -> None:
    """Stopped for 60 s: payloads go on, and so does the listener; account is right afterwards."""
    async with running(tmp_path / "data", database_url=server.url) as api:
        streamer = await api.streamer()
        processor = await api.processor("lounge", streamer)
        query = (await api.playback_url(streamer)).partition("?")[2]
        async with Client(f"{api.url}/whep/{streamer}?{query}") as listener:
            async with asyncio.timeout(10):
                while not listener.payloads:
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(60)
            heard = len(listener.payloads)
            numbers = [payload["s"] for payload in listener.payloads]
            assert numbers == list(range(numbers[0], numbers[0] + heard)), "none is missing"
            assert heard > 115
            assert listener.pc.connectionState == "connected"
            async with httpx.AsyncClient() as client:
                began = time.monotonic()
                assert (await client.get(f"{api.url}/healthz")).status_code == 200
                assert time.monotonic() - began < 0.5
            await asyncio.to_thread(server.start)
        async with asyncio.timeout(20):
            while True:
                answer = await api.client.get(f"{api.url}/v1/MediaProcessors/{processor['sid']}")
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0.5)
        assert answer.json()["status"] == "started"


async def test_two_services_do_not_share_a_database(tmp_path: Path, server: PostgreSql) -> None:
    async with running(tmp_path / "one", database_url=server.url) as api:
        await api.post("Rooms", UniqueName="show")
        with pytest.raises(ValueError, match="^database_url: another audiomixer uses this database"):
            async with running(tmp_path / "other", database_url=server.url):
                pass
        assert (await api.get("Rooms/show"))["status"] == "in-progress"
    async with running(tmp_path / "other", database_url=server.url) as api:
        assert (await api.get("Rooms/show"))["status"] == "in-progress"


async def test_who_has_lost_the_database_to_another_stops_and_writes_nothing(
    tmp_path: Path, server: PostgreSql
) -> None:
    """Another waits for the lock, and has it when the connection that holds it is ended."""
    async with (
        running(tmp_path / "data", database_url=server.url) as api,
        Client(api.whip("lounge"), Microphone(500), token=api.token("alice")),
    ):
        await api.settle()
        with psycopg.connect(server.url, autocommit=True) as killer, psycopg.connect(server.url) as other:
            find = "SELECT pid, objid, classid FROM pg_locks WHERE locktype = 'advisory'"
            ((pid, low, high),) = killer.execute(find).fetchall()
            take = asyncio.to_thread(other.execute, "SELECT pg_advisory_lock(%s)", [high << 32 | low])
            waiting = asyncio.create_task(take)
            await asyncio.sleep(0.5)
            killer.execute("SELECT pg_terminate_backend(%s)", [pid])
            await waiting
            refused = await api.client.post(f"{api.url}/v1/Rooms", data={"UniqueName": "show"})
            assert refused.status_code == 503
            assert killer.execute("SELECT unique_name FROM rooms").fetchall() == [("lounge",)]
            async with asyncio.timeout(15):
                await api.service.taken.wait()
                while (await api.client.get(f"{api.url}/v1/Rooms")).status_code != 503:
                    await asyncio.sleep(0.1)
            there = killer.execute("SELECT status FROM participants").fetchall()
            assert there == [("connected",)], "who was there is the other's business"


async def test_a_claim_that_the_server_still_has_of_a_lost_connection_is_no_others(
    tmp_path: Path, server: PostgreSql
) -> None:
    """As after a partition: the server has not noticed yet that the connection is dead, and the lock is with it."""
    async with running(tmp_path, database_url=server.url) as api:
        await api.post("Rooms", UniqueName="one")
        find = (
            "SELECT a.pid, application_name, objid, classid FROM pg_locks JOIN pg_stat_activity a USING (pid)"
            " WHERE locktype = 'advisory'"
        )
        with psycopg.connect(server.url, autocommit=True) as killer:
            ((pid, name, low, high),) = killer.execute(find).fetchall()
            with psycopg.connect(server.url, application_name=name) as former:
                take = asyncio.to_thread(former.execute, "SELECT pg_advisory_lock(%s)", [high << 32 | low])
                waiting = asyncio.create_task(take)
                await asyncio.sleep(0.5)
                killer.execute("SELECT pg_terminate_backend(%s)", [pid])
                await waiting
                await api.post("Rooms", UniqueName="two")
                with pytest.raises(psycopg.OperationalError):
                    former.execute("SELECT 1")
        assert not api.service.taken.is_set()


async def test_a_first_start_that_was_killed_leaves_a_database_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the schema: none of it is there afterwards."""
    from alembic.operations import Operations

    made = 0
    create = Operations.create_table

    def fail(self: Operations, *arguments: object, **options: object) -> object:
        nonlocal made
        made += 1
        if made == 3:
            raise KeyboardInterrupt
        return create(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Operations, "create_table", fail)
    with pytest.raises(KeyboardInterrupt):
        async with running(tmp_path):
            pass
    monkeypatch.setattr(Operations, "create_table", create)
    async with running(tmp_path) as api:
        await api.post("Rooms", UniqueName="show")


async def test_the_database_is_nobody_elses_to_read(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        await api.post("Rooms", UniqueName="show")
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob("audiomixer.db*")}
    assert set(modes.values()) == {0o600}, modes
