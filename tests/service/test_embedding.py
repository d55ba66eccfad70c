"""The service inside somebody's application."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import fastapi
import httpx
import pytest
from playwright.async_api import Page

from audiomixer.service import Settings, create_app
from audiomixer.service.http.server import serving
from audiomixer.service.service import Service
from audiomixer.service.settings import load

ROOT = Path(__file__).parent.parent.parent


async def test_two_lines_and_everything_is_there(tmp_path: Path, plain_page: Page) -> None:
    """Mounted under /live without more ado: the API, URLs in its answers, pages, and a stream that plays."""
    live = create_app(Settings(data=tmp_path))
    app = fastapi.FastAPI()
    app.mount("/live", live)
    service: Service = live.state.service
    settings = service.settings
    async with serving(app, "127.0.0.1", 0) as url:
        auth = (settings.account_sid, settings.auth_token)
        async with httpx.AsyncClient(auth=auth, base_url=f"{url}/live/v1/") as client:
            streamer = (await client.post("PlayerStreamers")).json()
            assert streamer["url"] == f"{url}/live/v1/PlayerStreamers/{streamer['sid']}"
            context = json.dumps({"room": {"name": "show"}, "outputs": [streamer["sid"]]})
            form = {"Extension": "audio-mixer-v2", "ExtensionContext": context}
            assert (await client.post("MediaProcessors", data=form)).status_code == 201
            grant = (await client.post(f"{streamer['url']}/PlaybackGrant", data={"Ttl": 60})).json()["grant"]
            assert (await client.get("nothing")).json()["message"].endswith("/live/v1/nothing was not found")
        await plain_page.goto(f"{url}/live/listen/{streamer['sid']}")
        script = """async ([module, url]) => {
            const player = await (await import(module)).Player.connectTo(url);
            player.play();
            return new Promise((resolve) => player.on('timedMetadataReceived', ({ metadata }) => resolve(metadata)));
        }"""
        arguments = [f"{url}/live/web/player.js", grant["playbackUrl"]]
        assert "s" in json.loads(await plain_page.evaluate(script, arguments))
        await service.close()


async def test_the_example(tmp_path: Path) -> None:
    """As printed: its own page, and the service under /live; it stops with SIGTERM."""
    script = ROOT / "examples" / "embedded.py"
    process = await asyncio.create_subprocess_exec(sys.executable, script, cwd=tmp_path, stderr=PIPE)
    try:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:8000") as client, asyncio.timeout(20):
            while True:
                try:
                    assert "audiomixer at /live/" in (await client.get("/")).text
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
            assert (await client.get("/live/healthz")).json() == {"status": "ok"}
            assert (await client.get("/live/v1/Rooms")).status_code == 401
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode in {0, -15}
    assert (tmp_path / "audiomixer-data" / "credentials.json").exists()


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"account_sid": "AC1"}, "account_sid: expected AC and 32"),
        ({"auth_token": "short"}, "auth_token: "),
        ({"rooms": "zoom:"}, "rooms: expected local:"),
        ({"public_url": "example.org"}, "public_url: expected http"),
        ({"media_port": "65536"}, "media_port: "),
        ({"ice_addresses": "here"}, "ice_addresses: "),
        ({"turn_url": "turn:"}, "turn_url: expected"),
        ({"allowed_networks": "10.0.0.0/33"}, "allowed_networks: "),
        ({"max_rooms": -1}, "max_rooms: "),
        ({"log_format": "xml"}, "log_format: "),
    ],
)
def test_settings_that_are_none(setting: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}") as raised:
        load(**setting)
    assert "short" not in str(raised.value), "a secret is not repeated"


def test_settings_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments come before the environment, that before the file, that before what is made up."""
    file = tmp_path / "audiomixer.toml"
    file.write_text('max_rooms = 5\nmax_participants = 6\nmedia_port = 40000\nallowed_networks = ["10.0.0.0/8"]\n')
    monkeypatch.setenv("AUDIOMIXER_MAX_ROOMS", "7")
    monkeypatch.setenv("AUDIOMIXER_ICE_ADDRESSES", "127.0.0.1, ::1")
    settings = load(file, data=tmp_path / "data")
    assert (settings.max_rooms, settings.max_participants) == (7, 6)
    assert settings.ice("0.0.0.0").media_port == 40_000
    assert settings.ice("0.0.0.0").addresses == ["127.0.0.1", "::1"]
    made = settings.complete()
    assert made == ["account_sid", "auth_token", "api_key", "api_secret"]
    again = load(file, data=tmp_path / "data", auth_token="x" * 32)
    assert again.complete() == []
    assert (again.account_sid, again.auth_token) == (settings.account_sid, "x" * 32)
    assert (tmp_path / "data" / "credentials.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="^config: expected a file"):
        load(tmp_path / "nothing.toml")


def test_variables_that_are_set_for_us_are_no_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes tells where a Service is that is called audiomixer; `audiomixer mix` has its room there."""
    monkeypatch.setenv("AUDIOMIXER_ROOM", "local:show")
    monkeypatch.setenv("AUDIOMIXER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("AUDIOMIXER_SERVICE_PORT_HTTP", "8080")
    monkeypatch.setenv("AUDIOMIXER_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("AUDIOMIXER_PORT_8080_TCP_ADDR", "10.0.0.1")
    load()
    monkeypatch.setenv("AUDIOMIXER_MAX_ROOM", "7")
    with pytest.raises(ValueError, match="AUDIOMIXER_MAX_ROOM: expected a setting: AUDIOMIXER_MAX_ROOMS"):
        load()
