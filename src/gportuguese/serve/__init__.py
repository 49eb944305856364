"""The demo page and an OpenAI-compatible completions server for one model: `gpt-pt serve`."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Collection
from pathlib import Path

import uvicorn

from gportuguese.generation import Writer
from gportuguese.serve.about import About, describe, model_name
from gportuguese.serve.app import make_app
from gportuguese.serve.connection import TimedProtocol
from gportuguese.serve.engine import Engine, Limits, ServeError

__all__ = [
    "About",
    "Engine",
    "Limits",
    "ServeError",
    "check_access",
    "describe",
    "make_app",
    "make_server",
    "model_name",
    "run",
]

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
    """Serves until SIGINT or SIGTERM; running texts then have five seconds to finish.

    Raises `ServeError` if it cannot listen on the address, or as `check_access` does.
    """
    check_access(host, token)
    limits = limits or Limits()
    listener = _listen(host, port)
    with listener:
        folder = Path(model_dir).resolve()
        writer = Writer.load(folder, device)
        engine = Engine(writer, limits)
        server = make_server(engine, describe(folder, writer), token or None, _hosts(host))
        shown = f"[{host}]" if ":" in host else host
        _log.info("http://%s:%d  (press Ctrl+C to stop)", shown, listener.getsockname()[1])
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after shutting down
            server.run(sockets=[listener])


def check_access(host: str, token: str | None) -> None:
    """Raises `ServeError` if other machines can reach `host` without a token, or if no client can send it."""
    if not token and not is_loopback(host):
        raise ServeError(
            f"serve: other machines can reach {host}, so a token is required; "
            "set GPT_PT_TOKEN or --token, or use --host 127.0.0.1"
        )
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ServeError(
            "serve: the token is sent in a header, so it must be printable ASCII without spaces"
        )


def make_server(
    engine: Engine, model: About, token: str | None = None, hosts: Collection[str] = ("*",)
) -> uvicorn.Server:
    """A uvicorn server with limits on the number and duration of connections."""

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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(host: str) -> tuple[str, ...]:
    """The host names that requests may use for this server.

    Another site can point its own name at 127.0.0.1 (DNS rebinding), and the browser would then treat
    that site's pages as ours. On other addresses, the token protects against that.
    """
    return ("localhost", "127.0.0.1", "::1", "[::1]", host) if is_loopback(host) else ("*",)


def _listen(host: str, port: int) -> socket.socket:
    """Opens the listening socket. Called before the model is loaded, so that errors come early."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise ServeError(
            f"serve: cannot listen on {host}:{port}: {error}; choose another --port or --host"
        ) from error
