"""The HTTP service: rooms to talk in, streams to listen to, the API that commands them, and the pages."""

from audiomixer.service.app import create_app
from audiomixer.service.media import media_app
from audiomixer.service.settings import Settings
from audiomixer.service.streams import Streams

__all__ = ["Settings", "Streams", "create_app", "media_app"]
