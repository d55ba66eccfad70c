"""URLs of rooms."""

import pytest

from audiomixer.rooms.place import Place, check_server, place_url


def test_places() -> None:
    assert Place.parse("local:the lounge") == Place("local", "the lounge")
    there = Place.parse("livekit+wss://example.com/the%20lounge?token=abc")
    assert (there.kind, there.name, there.server) == ("livekit", "the lounge", "wss://example.com")
    assert there.parameters == {"token": "abc"}
    behind = Place.parse("janus+ws://[::1]:8188/janus/1234?pin=1&admin_key=2")
    assert (behind.kind, behind.name, behind.server) == ("janus", "1234", "ws://[::1]:8188/janus")
    assert "abc" not in repr(there)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "show",
        "local:",
        "local:a/b",
        "wss://example.com/show",
        "livekit+wss:///show",
        "livekit+wss://example.com",
        "livekit+wss://example.com/",
        "livekit+wss://example.com:0/show",
        "livekit+wss://example.com/%00",
        "livekit+wss://example.com/show?pin=1",
        "janus+wss://user:hush@example.com/1234",
        "janus+wss://example.com/1234?token=hush&frob=hush",
        f"janus+wss://example.com/{'x' * 257}?token=hush",
    ],
)
def test_what_is_none(url: str) -> None:
    """It is said what was expected, and nothing that may be secret."""
    with pytest.raises(ValueError, match="^room: expected") as caught:
        Place.parse(url)
    assert "hush" not in str(caught.value)


def test_the_rooms_of_a_server() -> None:
    assert place_url("local:", "lounge") == "local:lounge"
    url = place_url("livekit+wss://example.com/?api_key=k&api_secret=s", "a b/c?")
    assert Place.parse(url).name == "a b/c?"
    assert Place.parse(url).parameters == {"api_key": "k", "api_secret": "s"}
    assert check_server("janus+wss://example.com/janus/") == "janus"
    assert check_server("local:") == "local"


def test_defaults_do_not_stand_against_what_is_given() -> None:
    """And a token stands for itself: an API key beside it would make another mixer of it."""
    keys = {"api_key": "k", "api_secret": "s"}
    assert Place.parse("livekit+wss://h/r").with_defaults(keys).parameters == {"api_key": "k", "api_secret": "s"}
    assert Place.parse("livekit+wss://h/r?token=t").with_defaults(keys).parameters == {"token": "t"}
    assert Place.parse("janus+wss://h/r?pin=2").with_defaults({"pin": "1"}).parameters == {"pin": "2"}
