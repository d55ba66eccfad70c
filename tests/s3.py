"""An S3 server that nobody here wrote (s3s-fs), which can be killed, stopped in its tracks, and be slow or full."""

import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.command import free_port
from tests.outputs.servers import Server

_TOOLS = Path(__file__).parent.parent / "target" / "tools"
_VERSION = "0.14.1"
_KEY, _SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def s3s_fs() -> Path:
    """The server, which is built once."""
    program = _TOOLS / "bin" / "s3s-fs"
    if not program.exists():
        options = ["--quiet", "--locked", "--features", "binary", "--root", str(_TOOLS), "--version", _VERSION]
        subprocess.run(["cargo", "install", *options, "s3s-fs"], check=True)
    return program


class S3:
    """A server with a bucket, whose objects are files."""

    def __init__(self, server: Server, root: Path) -> None:
        self.server = server
        self.bucket = root / "bucket"


@contextlib.asynccontextmanager
async def s3_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3]:
    """A server, which the environment tells of as it does of S3 itself."""
    port = free_port()
    (root / "bucket").mkdir(parents=True)
    options = ["--host", "127.0.0.1", "--port", str(port), "--access-key", _KEY, "--secret-key", _SECRET]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", _KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
    async with Server([str(s3s_fs()), *options, str(root)], port) as server:
        yield S3(server, root)


if __name__ == "__main__":
    print(f"s3s-fs: {s3s_fs()}")
