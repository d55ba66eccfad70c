"""What may happen to resources, and in which order."""

import pytest

from audiomixer.service.resources import lives
from audiomixer.service.resources.store import MediaProcessor, PlayerStreamer, Resource, Room


@pytest.mark.parametrize(
    ("life", "resource", "timeline", "statuses", "reason"),
    [
        (
            lives.PLAYER_STREAMER,
            PlayerStreamer(),
            ["started", "started", "stream-disconnected-by-source", "ended-via-api"],
            ["started", None, "ended", None],
            "stream-disconnected-by-source",
        ),
        (
            lives.PLAYER_STREAMER,
            PlayerStreamer(),
            ["unexpected-failure", "started"],
            ["failed", None],
            "unexpected-failure",
        ),
        (lives.MEDIA_PROCESSOR, MediaProcessor(), ["error-streaming-media"], ["failed"], "error-streaming-media"),
        (lives.MEDIA_PROCESSOR, MediaProcessor(), ["max-duration-exceeded"], ["ended"], "max-duration-exceeded"),
        (lives.ROOM, Room(), ["completed", "completed"], ["completed", None], None),
    ],
)
def test_what_has_ended_stays_as_it_is(
    life: lives.Life, resource: Resource, timeline: list[str], statuses: list[str | None], reason: str | None
) -> None:
    resource.status = life.begins
    for event, status in zip(timeline, statuses, strict=True):
        assert life.happens(resource, event) == (status is not None)
        assert status is None or resource.status == status
    assert resource.ended
    assert resource.status not in life.open
    assert getattr(resource, "ended_reason", None) == reason


def test_what_cannot_happen_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError, match="misspelt"):
        lives.ROOM.happens(Room(status="in-progress"), "misspelt")
