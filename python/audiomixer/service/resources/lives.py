"""The lives of resources, as tables: what may happen to one in which status, and which status it has then.

What else belongs to that (callbacks, mixers that stop, rooms that people leave) is in the lifecycles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from audiomixer.service.resources.store import Resource, now


@dataclass(frozen=True, slots=True)
class Life:
    """The life of one kind of resource."""

    begins: str
    """The status of a new one."""
    events: Mapping[str, Mapping[str, str]]
    """For everything that happens, the status after it, by the one before."""

    @property
    def open(self) -> frozenset[str]:
        """The statuses in which something may happen yet; one in any other has ended."""
        return frozenset().union(*self.events.values())

    def happens(self, resource: Resource, event: str) -> bool:
        """Moves a resource on; what ends it is its reason. False, and it stays as it is, if that happens to it no more.

        Raises:
            KeyError: There is no such event.
        """
        after = self.events[event].get(resource.status)
        if after is None:
            return False
        resource.status, resource.updated = after, now()
        if after not in self.open:
            resource.ended = resource.updated
            if hasattr(resource, "ended_reason"):
                resource.ended_reason = event
        return True


MEDIA_PROCESSOR: Final = Life(
    "started",
    {
        "ended-via-api": {"started": "ended"},
        "max-duration-exceeded": {"started": "ended"},
        "error-loading-extension": {"started": "failed"},
        "error-streaming-media": {"started": "failed"},
        "internal-service-error": {"started": "failed"},
    },
)

PLAYER_STREAMER: Final = Life(
    "created",
    {
        "started": {"created": "started"},
        "ended-via-api": {"created": "ended", "started": "ended"},
        "max-duration-exceeded": {"created": "ended", "started": "ended"},
        "stream-disconnected-by-source": {"created": "ended", "started": "ended"},
        "unexpected-failure": {"created": "failed", "started": "failed"},
    },
)

RECORDING: Final = Life(
    "recording",
    {
        "stopped": {"recording": "processing"},
        "completed": {"processing": "completed"},
        "failed": {"recording": "failed", "processing": "failed"},
    },
)

ROOM: Final = Life("in-progress", {"completed": {"in-progress": "completed"}})
