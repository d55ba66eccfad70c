"""Structured logs: a JSON object a line, with the SID that a line is about, and no secrets."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Final

_SECRET: Final = re.compile(
    r"((?:[?&#]|\b)(?:\w*token|password|\w*secret|\w*_key|pin)=)[^&\s'\"]+|(://)[^/@\s]+@|eyJ[\w-]+\.[\w-]+\.[\w-]+"
)


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _SECRET.sub(
            lambda found: f"{found[1] or found[2] or ''}[secret]{'@' if found[2] else ''}", super().format(record)
        )


class TextFormatter(_Redacting):
    """A line of text per record."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole record."""
        sid = getattr(record, "sid", None)
        return super().format(record) + (f" ({sid})" if sid else "")


class JsonFormatter(_Redacting):
    """A line of JSON per record: `time`, `level`, `logger`, `message`, and `sid` where there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The record without its traceback."""
        return record.message

    def format(self, record: logging.LogRecord) -> str:
        """The whole record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": super().format(record),
        }
        sid = getattr(record, "sid", None)
        return json.dumps(line | ({"sid": sid} if sid else {}), ensure_ascii=False)


def set_up(kind: str) -> None:
    """Logs to stderr, as `json` or `text`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if kind == "json" else TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("audiomixer").setLevel(logging.INFO)
