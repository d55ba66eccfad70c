"""A real PostgreSQL, Debian's, in a folder of its own, on a port of its own."""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.command import free_port


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Runs a server until the block is left; gives the URL of a database."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    port = free_port()
    user: dict[str, int] = {}
    if os.getuid() == 0:
        # It refuses to run as root.
        postgres = pwd.getpwnam("postgres")
        os.chown(folder, postgres.pw_uid, postgres.pw_gid)
        user = {"user": postgres.pw_uid, "group": postgres.pw_gid}

    def run(program: str, *arguments: str) -> None:
        subprocess.run([programs / program, *arguments], check=True, cwd=folder, stdout=subprocess.DEVNULL, **user)  # type: ignore[call-overload]

    data = str(folder / "data")
    run("initdb", "--auth=trust", "--username=audiomixer", "--no-sync", data)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    run("pg_ctl", "--wait", "-D", data, "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://audiomixer@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "--wait", "-D", data, "-m", "immediate", "stop")
