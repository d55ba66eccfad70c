"""Where the service may connect to on a client's word."""

import ipaddress
import socket

import pytest

from audiomixer.service.outbound import ForbiddenError, Outbound
from tests.service.api import Api


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:8080/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[fe80::1]/",
        "http://[fc00::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://nowhere.invalid/",
        "http://",
        "//127.0.0.1/",
        "http://exa mple.org/",
        "http://example.org:99999/",
        "http://[/",
        "gopher://1.1.1.1/",
        "file:///etc/passwd",
        "http://1.1.1.1/" + "x" * 3000,
    ],
)
async def test_places_that_are_forbidden(url: str) -> None:
    with pytest.raises(ForbiddenError, match="^StatusCallback: expected "):
        await Outbound().check(url, "StatusCallback", ("http", "https"))


async def test_places_that_are_not() -> None:
    outbound = Outbound([ipaddress.IPv4Network("127.0.0.0/8")])
    for url in (
        "https://1.1.1.1/hook?x=1",
        "http://[2606:4700::1111]:8080/",
        "http://127.0.0.1:9/",
        "http://localhost/",
    ):
        assert await outbound.check(url, "StatusCallback", ("http", "https")) == url
    with pytest.raises(ForbiddenError):
        await outbound.check("http://10.0.0.1/", "StatusCallback", ("http", "https"))


async def test_an_output_whose_name_has_come_to_mean_another_address(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Public when it is given, private when it is connected to: the MediaProcessor fails, and connects to nothing."""
    answers = iter(["203.0.113.7", "203.0.113.7", "127.0.0.1"])

    def look_up(host: str, port: object, **_: object) -> list[tuple[object, ...]]:
        address = next(answers) if host == "push.example" else host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    api.service.outbound._allowed.clear()
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(ipaddress.IPv4Address, "is_global", property(lambda self: not self.is_loopback))
    processor = await api.processor("lounge", "rtmp://push.example/live/key")
    assert (processor["status"], processor["ended_reason"]) == ("failed", "error-streaming-media")
