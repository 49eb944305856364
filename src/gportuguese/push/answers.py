"""What the Hub's answers and failures mean: whether to try again, and what to tell the user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

# both are exported when asked for, which mypy does not see
from huggingface_hub.utils import httpx, parse_ratelimit_headers  # type: ignore[attr-defined]

_FIRST_WAIT_SECONDS = 1.0  # doubled each time
_MAX_WAIT_SECONDS = 600.0  # of a server's Retry-After
# 409 and 412: somebody else's commit came in between, so look again
_TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)
_CONNECTION_LOSS = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)

FAILURES = (httpx.HTTPError, OSError, RuntimeError, ValueError)
"""What the client raises: RuntimeError for uploads, ValueError for a README or an answer that cannot
be read."""

_AGAIN = "run again later: what has arrived is not sent twice"
_ADVICE = {
    401: "it does not accept this token: run `hf auth login`, or set HF_TOKEN to a token that may "
    "write",
    402: "the account's plan or storage does not allow it: see {endpoint}/settings/billing",
    403: "this token has no write permission there: make one with the role 'write' at "
    "{endpoint}/settings/tokens, or choose a repository under a name of your own",
    404: "it has no such repository or branch, or hides it from this token: check --repo and "
    "--revision",
    409: "somebody else is changing the repository: run again when they are done",
    412: "others keep committing in between, or this token may only open pull requests: run again "
    "later, or with a token that may write",
    413: "the files are too large for it",
    429: f"it has had too many requests: {_AGAIN}",
}


def wait_seconds(error: Exception, tries: int) -> float | None:
    """How long to wait after so many tries: as the Hub asks, else doubled; None if it is no use.

    >>> wait_seconds(httpx.ConnectError("refused"), tries=3)
    4.0
    """
    doubled = float(_FIRST_WAIT_SECONDS * 2 ** (tries - 1))
    answer = _answer(error)
    if answer is None:
        # in the middle of trouble, proxies answer with pages where JSON is due
        is_transient = _is_connection_loss(error) or isinstance(error, json.JSONDecodeError)
        return doubled if is_transient else None
    if answer.response.status_code not in _TRANSIENT:
        return None
    asked = _asked_seconds(answer)
    return min(doubled if asked is None else asked, _MAX_WAIT_SECONDS)


def _asked_seconds(answer: HfHubHTTPError) -> float | None:
    """What Retry-After or RateLimit say, if they say anything."""
    headers = answer.response.headers
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
        return max((until - datetime.now(timezone.utc)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # no date, or one without a zone
        limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def reason(error: Exception, endpoint: str, token: str) -> str:
    """What happened, in a line without the token."""
    answer = _answer(error)
    if answer is not None:
        what, text = f"{endpoint} answers {answer.response.status_code}", answer.server_message
    elif isinstance(error, OfflineModeIsEnabled):
        what, text = "huggingface_hub is offline", None
    else:
        last = list(_chain(error))[-1]
        what, text = type(last).__name__, str(last)
        if _is_connection_loss(error):
            what = f"no connection to {endpoint}: {what}"
    text = " ".join((text or "").replace(token, "***").split())[:300]
    return f"{what} ({text})" if text else what


def advice(error: Exception, endpoint: str) -> str:
    """What to do about it."""
    answer = _answer(error)
    if answer is not None:
        status = answer.response.status_code
        usual = _AGAIN if status >= 500 else "mend what it names and run again"
        return _ADVICE.get(status, usual).format(endpoint=endpoint)
    if isinstance(error, OfflineModeIsEnabled):
        return "unset HF_HUB_OFFLINE to push"
    if _is_connection_loss(error):
        return f"check the network and {_AGAIN}"
    return "mend that and run again"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: uploads wrap what the Hub answered."""
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: Exception) -> HfHubHTTPError | None:
    return next((each for each in _chain(error) if isinstance(each, HfHubHTTPError)), None)


def _is_connection_loss(error: Exception) -> bool:
    return any(isinstance(each, _CONNECTION_LOSS) for each in _chain(error))
