"""The HTTP service: rooms to talk in, streams to listen to, the API that commands them, and the pages."""

from typing import TYPE_CHECKING, Any

from audiomixer.service.http.endpoints import media_app
from audiomixer.service.http.server import serving
from audiomixer.service.streams import Streams

if TYPE_CHECKING:
    from audiomixer.service.http.app import create_app
    from audiomixer.service.settings import Settings

__all__ = ["Settings", "Streams", "create_app", "media_app", "serving"]


def __getattr__(name: str) -> Any:
    # The API brings a database and a framework along, which the demo and `audiomixer mix` do without.
    if name == "create_app":
        from audiomixer.service.http.app import create_app

        return create_app
    if name == "Settings":
        from audiomixer.service.settings import Settings

        return Settings
    raise AttributeError(name)
