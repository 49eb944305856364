"""An HTTP session that retries, logs why, and waits as long as the server asks."""

from __future__ import annotations

import logging
import time
from importlib import metadata
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, exceptions
from urllib3.util.retry import Retry

log = logging.getLogger("gportuguese")

MAX_RETRIES = 6
TIMEOUTS = (10.0, 60.0)  # seconds to connect, and without a byte
_MAX_WAIT_SECONDS = 600.0  # longest Retry-After that is followed
_TRANSIENT = (408, 429, 500, 502, 503, 504)


class _Retry(Retry):
    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        asked = self.get_retry_after(response) if response else None
        seconds = min(asked or self.get_backoff_time(), _MAX_WAIT_SECONDS)
        last = self.history[-1]
        log.info(
            "%s; trying again %s (try %d of %d)",
            in_words(last.error) if last.error else f"the server answers {last.status}",
            f"in {seconds:.0f} s" if seconds else "at once",
            len(self.history) + 1,
            MAX_RETRIES + 1,
        )
        time.sleep(seconds)


def patient_session(wait_seconds: float) -> requests.Session:
    """A session that retries after `wait_seconds`, doubled each time."""
    retry = _Retry(
        total=MAX_RETRIES,
        backoff_factor=wait_seconds,
        status_forcelist=_TRANSIENT,
        raise_on_status=False,
    )
    session = requests.Session()
    session.headers["User-Agent"] = user_agent()
    session.headers["Accept-Encoding"] = "identity"
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def user_agent() -> str:
    """Program, version and address; the host rejects clients without them."""
    about = metadata.metadata("gportuguese")
    url = next(line.partition(", ")[2] for line in about.get_all("Project-URL", []))
    return f"gportuguese/{about['Version']} (+{url})"


def in_words(error: Any) -> str:
    """Why a request failed, without names of Python objects."""
    match error:
        case requests.RequestException(args=(Exception() as inner, *_)):
            return in_words(inner)
        case exceptions.MaxRetryError(reason=Exception() as inner):
            return in_words(inner)
        case exceptions.ProxyError(original_error=inner):
            return f"the proxy failed: {in_words(inner)}"
        case exceptions.NameResolutionError():
            return "the host's name cannot be resolved (is there a network?)"
        case exceptions.NewConnectionError(__cause__=OSError(strerror=str() as reason)):
            return f"no connection ({reason})"
        case exceptions.ConnectTimeoutError():
            return f"no connection within {TIMEOUTS[0]:.0f} s (is there a network?)"
        case exceptions.ReadTimeoutError():
            return f"no data for {TIMEOUTS[1]:.0f} s"
        case exceptions.SSLError(args=(inner, *_)):
            return f"no secure connection ({inner})"
        case exceptions.ProtocolError():
            return "the connection broke off"
    return str(error)
