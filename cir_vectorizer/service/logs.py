"""Logs as JSON, one object a line on stderr. Keys are never logged, and of a query only what the sentence
that refuses it quotes."""

import logging
import sys
import time
from typing import Any

from cir_vectorizer.redaction import json_text

FIELDS = "cir_fields"
"""Name of the `extra` that holds a record's own fields."""


class JsonLines(logging.Formatter):
    """Formats a record as time (UTC), level, logger, message, its own fields, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json_text(line, sys.stderr.encoding, default=str)


def configure(level: str) -> None:
    """Send all logs of this process to stderr as JSON, uvicorn's too, except its lines for each request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.INFO, logging.getLevelName(level.upper())))
    logging.getLogger("cir_vectorizer").setLevel(level.upper())
    for name in ("httpx", "httpcore", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
