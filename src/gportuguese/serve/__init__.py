"""The demo page and an OpenAI-compatible completions server for one model: `gpt-pt serve`."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Collection
from pathlib import Path

import uvicorn

from gportuguese.generate import Writer
from gportuguese.serve.app import make_app
from gportuguese.serve.connection import TimedProtocol
from gportuguese.serve.engine import Engine, Limits, ServeError

__all__ = ["Engine", "Limits", "ServeError", "make_app", "make_server", "run"]

_log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 256


def run(
    model_dir: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "cpu",
    token: str | None = None,
    limits: Limits | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM; texts being written then have five seconds to end.

    Raises `ServeError` if the address cannot be had, or can be reached from other machines and
    there is no token.
    """
    if not token and not is_loopback(host):
        raise ServeError(
            f"serve: {host} can be reached from other machines, so a token is needed; "
            "set GPT_PT_TOKEN or --token, or keep to --host 127.0.0.1"
        )
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ServeError("serve: a token is printable ASCII without spaces: it goes into a header")
    limits = limits or Limits()
    listener = _listen(host, port)
    with listener:
        folder = Path(model_dir).resolve()
        writer = Writer.load(folder, device)
        engine = Engine(writer, str(model_dir), limits)
        server = make_server(engine, model_name(folder), token or None, _hosts(host))
        shown = f"[{host}]" if ":" in host else host
        _log.info("http://%s:%d  (Ctrl+C ends)", shown, listener.getsockname()[1])
        with contextlib.suppress(KeyboardInterrupt):  # raised again once all texts have ended
            server.run(sockets=[listener])


def make_server(
    engine: Engine, model: str, token: str | None = None, hosts: Collection[str] = ("*",)
) -> uvicorn.Server:
    """uvicorn with limits for slow, many and long connections."""

    class Protocol(TimedProtocol):
        answer_seconds = engine.limits.time_limit + 30

    config = uvicorn.Config(
        make_app(engine, model, token, hosts),
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def model_name(folder: Path) -> str:
    """What clients call the model: its Hub id, its folder's name, or the stage's for `model`.

    >>> model_name(Path("artifacts/train-0f3a/model"))
    'train-0f3a'
    """
    cached = folder.parent.parent.name  # models--USER--NAME/snapshots/COMMIT in the Hub's cache
    if cached.startswith("models--"):
        return cached.removeprefix("models--").replace("--", "/")
    return folder.parent.name if folder.name == "model" else folder.name


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(host: str) -> tuple[str, ...]:
    """The names that requests may use for this server.

    A page of another site can point its own name at 127.0.0.1 and would then count as ours; with a
    token that does not help it.
    """
    return ("localhost", "127.0.0.1", "::1", "[::1]", host) if is_loopback(host) else ("*",)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, had before the model is loaded: a taken port is told at once."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise ServeError(
            f"serve: cannot listen on {host}:{port}: {error}; choose a --port"
        ) from error
