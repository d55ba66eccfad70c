"""Firefox as it comes: it talks and listens, and offers no address but names that nobody can look up."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.firefox import Firefox, firefox, in_namespace
from tests.namespace import ENTER, INSIDE, no_udp

URL = f"https://{INSIDE}:8443"
READ = "import httpx, sys; print(httpx.get(sys.argv[1]).text)"
LISTEN = """
const Connection = RTCPeerConnection;
window.RTCPeerConnection = class extends Connection {
    constructor(...given) { super(...given); window.connection = this; }
};
"""
"""To be run before a page connects."""
HEARD = """
return connection.getStats().then((stats) =>
    [...stats.values()].some(({ type, totalAudioEnergy }) => type === 'inbound-rtp' && totalAudioEnergy > 0.001));
"""
"""Whether what has been decoded is no silence."""
PROTOCOL = """
return connection.getStats().then((stats) => {
    const pair = [...stats.values()].find(({ type, nominated, selected }) => type === 'candidate-pair' && selected);
    return stats.get(pair.localCandidateId).protocol;
});
"""
"""By which media comes."""
AUDIOMIXER = [str(Path(sys.executable).with_name("audiomixer"))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo by HTTPS; gives the path of its stream's page."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={INSIDE}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    options = ["--host", "0.0.0.0", "--port", "8443", "--tls-cert", str(certificate), "--tls-key", str(key)]
    with in_namespace([*AUDIOMIXER, "demo", *options], 8443):
        with httpx.Client(verify=False, base_url=URL) as client:
            streams = []
            while not streams:
                streams = client.get("/overview.json").json()["streams"]
        yield f"/listen/{streams[0]['sid']}"


@pytest.fixture(scope="module")
def demo_of_ones_own(demo: str) -> Iterator[str]:
    """The demo as everybody starts it, on loopback; gives its stream's page."""
    url = "http://127.0.0.1:8080"
    with subprocess.Popen([*ENTER, *AUDIOMIXER, "demo", "--json"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            told = subprocess.run(
                [*ENTER, sys.executable, "-c", READ, f"{url}/overview.json"], check=True, capture_output=True
            )
            yield f"{url}/listen/{json.loads(told.stdout)['streams'][0]['sid']}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser_of_mozilla(demo: str) -> Iterator[Firefox]:
    with firefox() as session:
        yield session


def test_it_listens_by_webrtc_and_sees_who_talks(demo: str, browser_of_mozilla: Firefox, tmp_path: Path) -> None:
    page = browser_of_mozilla
    page.go_to(URL + demo + "?transport=whep")
    page.run(LISTEN)
    page.click("#play")
    assert page.until("return document.querySelector('#state').textContent === 'Playing live.'")
    assert page.until("return document.querySelectorAll('#meters .speaker').length === 3")
    assert page.until(HEARD)
    page.screenshot(tmp_path / "listen.png")
    assert (tmp_path / "listen.png").stat().st_size > 10_000


def test_it_listens_to_a_demo_on_loopback(demo_of_ones_own: str, browser_of_mozilla: Firefox) -> None:
    page = browser_of_mozilla
    page.go_to(demo_of_ones_own + "?transport=whep")
    page.run(LISTEN)
    page.click("#play")
    assert page.until("return document.querySelector('#state').textContent === 'Playing live.'")
    assert page.until("return document.querySelectorAll('#meters .speaker').length === 3")
    assert page.until(HEARD)


def test_it_joins_a_room_hears_it_and_is_heard(demo: str, browser_of_mozilla: Firefox) -> None:
    page = browser_of_mozilla
    page.go_to(f"{URL}/rooms/demo")
    page.type("#join input", "Zoë 日本")
    page.run(LISTEN)
    page.click("#join button")
    assert page.until("return document.querySelector('#state').textContent === 'You are in the room.'")
    own = "[...document.querySelectorAll('#meters .speaker')].find((line) => line.textContent.includes('Zoë 日本'))"
    # Firefox's fake microphone is a tone of 440 Hz.
    assert page.until(f"return Number({own}?.dataset.volume) > 1000")
    assert page.run(f"return {own}.textContent").startswith("Zoë 日本 (you)")
    assert page.until(HEARD)
    page.click("#mute")
    assert page.until(f"return {own}.dataset.volume === '-1'")
    page.click("#leave")
    assert page.until(f"return !{own}")


def test_it_listens_where_no_udp_passes(demo: str, browser_of_mozilla: Firefox) -> None:
    page = browser_of_mozilla
    with no_udp():
        page.go_to(URL + demo + "?transport=whep")
        page.run(LISTEN)
        began = time.monotonic()
        page.click("#play")
        assert page.until("return document.querySelector('#state').textContent === 'Playing live.'")
        assert time.monotonic() - began < 3
        assert page.until("return document.querySelectorAll('#meters .speaker').length === 3")
        assert page.until(HEARD)
        assert page.run(PROTOCOL) == "tcp"
