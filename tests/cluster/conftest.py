"""A cluster for all tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.cluster.machines import Machines
from tests.service.api import Api, running


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    machines = Machines(2)
    yield machines
    machines.close()


@pytest.fixture
async def api(machines: Machines, tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path / "data", engine="ray", ray_address=machines.address) as api:
        yield api
    assert api.service.cluster
    await api.service.cluster.retire()
