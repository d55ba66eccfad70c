"""A real PostgreSQL, Debian's, in a folder of its own, on a port of its own."""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.command import free_port


class PostgreSql:
    """A server that can be stopped, and started again.

    Args:
        folder: For its data.
    """

    def __init__(self, folder: Path) -> None:
        self._programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self._folder = folder
        self._port = free_port()
        self._user: dict[str, int] = {}
        if os.getuid() == 0:
            # It refuses to run as root.
            postgres = pwd.getpwnam("postgres")
            os.chown(folder, postgres.pw_uid, postgres.pw_gid)
            self._user = {"user": postgres.pw_uid, "group": postgres.pw_gid}
        self._run("initdb", "--auth=trust", "--username=audiomixer", "--no-sync", self._data)

    @property
    def url(self) -> str:
        return f"postgresql://audiomixer@127.0.0.1:{self._port}/postgres"

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, *arguments]
        subprocess.run(command, check=True, cwd=self._folder, stdout=subprocess.DEVNULL, **self._user)  # type: ignore[call-overload]

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "--wait", "-D", self._data, "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "--wait", "-D", self._data, "-m", "immediate", "stop")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[PostgreSql]:
    """Runs a server until the block is left."""
    server = PostgreSql(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
