"""The whole service, for the tests of this folder."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.service.api import Api, running
from tests.service.postgresql import running as server


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path / "data") as api:
        yield api


@pytest.fixture
def postgresql() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, server(Path(folder)) as url:
        yield url
