"""The payloads, as players of the retired service read them."""

import json

from audiomixer import TimedMetadata
from audiomixer.audio.metadata import id3


def test_a_payload_is_the_json_that_players_expect() -> None:
    payload = TimedMetadata.of(23, {"alice": 300, "bob": -1}, 12.0)
    assert payload.to_json() == '{"s": 23, "p": {"alice": {"v": 300}, "bob": {"v": -1}}}'
    assert payload.p["alice"].v == 300


def test_names_are_kept_as_they_are() -> None:
    payload = TimedMetadata.of(0, {'Zoë "the ear"': 1}, 0.5)
    assert "Zoë" in payload.to_json()
    assert json.loads(payload.to_json())["p"] == {'Zoë "the ear"': {"v": 1}}


def test_id3_has_the_text_in_one_private_frame() -> None:
    tag = id3("x" * 300)
    assert tag[:6] == b"ID3\x04\x00\x00"
    size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
    assert size == len(tag) - 10
    assert tag[10:14] == b"PRIV"
    assert tag[20:].split(b"\0", 1) == [b"metadata.live-video.net", b"x" * 300]
