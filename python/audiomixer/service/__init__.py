"""The HTTP service: rooms to talk in, streams to listen to, and the pages for both."""

from audiomixer.service.app import create_app
from audiomixer.service.streams import Streams

__all__ = ["Streams", "create_app"]
