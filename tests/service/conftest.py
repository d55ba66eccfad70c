"""The whole service, for the tests of this folder."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.service.api import Api, running
from tests.service.postgresql import PostgreSql
from tests.service.postgresql import running as started


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path / "data") as api:
        yield api


@pytest.fixture
def server() -> Iterator[PostgreSql]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, started(Path(folder)) as server:
        yield server


@pytest.fixture
def postgresql(server: PostgreSql) -> str:
    return server.url
