"""The web application: the page, the completions API, and health."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gportuguese.serve.about import About
from gportuguese.serve.completions import Completion
from gportuguese.serve.engine import Engine
from gportuguese.serve.requests import RefusedError, parse_completion

MAX_BODY_BYTES = 1_000_000
# A client whose connection is closed while it sends never sees the response, so read up to this much
# of a body that is too large before responding.
_MAX_DRAINED_BYTES = 32_000_000
_STATIC = Path(__file__).parent / "static"
_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Service:
    """The request handlers and their shared state."""

    def __init__(self, engine: Engine, model: About, token: str | None) -> None:
        self.engine = engine
        self.model = model
        self._token = token
        self._created = int(time.time())

    async def page(self, _: Request) -> Response:
        """The demo page."""
        return FileResponse(_STATIC / "index.html")

    async def health(self, _: Request) -> Response:
        """Status 200 while the engine is alive, otherwise 503; and the number of texts at work."""
        alive = self.engine.is_alive
        state = {
            "status": "ok" if alive else "failed",
            "running": self.engine.num_running,
            "waiting": self.engine.num_waiting,
        }
        return json_response(state, 200 if alive else 503)

    async def models(self, request: Request) -> Response:
        """Lists the only model. The page also reads `context_length` and `about`, our additions."""
        self._check_token(request)
        model = {
            "id": self.model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "gportuguese",
            "context_length": self.engine.context,
            "about": self.model.as_json(),
        }
        return json_response({"object": "list", "data": [model]})

    async def card(self, request: Request) -> Response:
        """The text of the model card."""
        self._check_token(request)
        if self.model.card is None:
            raise RefusedError("this model has no card", status=404)
        return PlainTextResponse(self.model.card)

    async def completions(self, request: Request) -> Response:
        """Completions like OpenAI's, streamed or not."""
        self._check_token(request)
        # other sites can send some other types without a CORS check by the browser
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise RefusedError("send Content-Type: application/json", status=415)
        parsed = parse_completion(await _read_body(request))
        if parsed.model not in (None, self.model.name):
            raise RefusedError(
                f"no model {parsed.model!r:.80}; this server has {self.model.name!r}",
                status=404,
                param="model",
                code="model_not_found",
            )
        completion = Completion(parsed, self.model.name, self.engine)
        await completion.start()
        if parsed.stream:
            return StreamingResponse(
                _cancelling(completion, completion.events()),
                media_type="text/event-stream",
            )
        try:
            tree = await _unless_disconnected(request, completion.whole())
        finally:
            completion.cancel()
        return json_response(tree)

    def _check_token(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self._token.encode())
        if scheme.lower() != "bearer" or not right:
            raise RefusedError(
                "a token is required; send it in the header Authorization: Bearer ...",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def make_app(
    engine: Engine, model: About, token: str | None = None, hosts: Collection[str] = ("*",)
) -> Starlette:
    """The web application, which starts and stops the engine. `hosts` are the allowed host names."""
    service = Service(engine, model, token)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with engine:
            yield

    return Starlette(
        routes=[
            Route("/", service.page),
            Route("/card", service.card),
            Route("/v1/completions", service.completions, methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/healthz", service.health),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={RefusedError: _refused, HTTPException: _http_error, 500: _failed},
        lifespan=lifespan,
    )


class SecurityHeaders:
    """The outermost middleware: adds security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards the request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in _SECURITY_HEADERS.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def json_response(
    tree: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON response in ASCII, so that it can quote a lone surrogate from the request."""
    return Response(json.dumps(tree), status, headers, media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return json_response(error.body, error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    refused = RefusedError(message, status=error.status_code)
    return json_response(refused.body, error.status_code, dict(error.headers or {}))


async def _failed(_: Request, error: Exception) -> Response:
    refused = RefusedError("the server failed; see its log", status=500, code="failed")
    return json_response(refused.body, 500)


async def _read_body(request: Request) -> bytes:
    """Reads the body; raises `RefusedError` if it exceeds `MAX_BODY_BYTES`."""
    body, num_bytes = bytearray(), 0
    try:
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes <= MAX_BODY_BYTES:
                body += chunk
            elif num_bytes > _MAX_DRAINED_BYTES:
                break
    except ClientDisconnect as error:
        raise RefusedError("the client has disconnected", status=400) from error
    if num_bytes > MAX_BODY_BYTES:
        raise RefusedError(
            f"the body has more than {MAX_BODY_BYTES:,} bytes",
            status=413,
            headers={"Connection": "close"},
        )
    return bytes(body)


async def _cancelling(completion: Completion, events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yields the events; cancels the texts when the client stops reading."""
    try:
        async for event in events:
            yield event
    finally:
        completion.cancel()


async def _unless_disconnected(
    request: Request, answer: Awaitable[dict[str, Any]]
) -> dict[str, Any]:
    """Awaits the answer; raises `RefusedError` as soon as the client disconnects."""
    working = asyncio.ensure_future(answer)
    watching = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise RefusedError("the client has disconnected", status=400)
    finally:
        working.cancel()
        watching.cancel()


async def _disconnected(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
