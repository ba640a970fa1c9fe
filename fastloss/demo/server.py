"""Serve the page and a WebSocket for each tab, on the loopback interface unless told otherwise."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from fastloss.demo.session import Session

STATIC = Path(__file__).parent / "static"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765
#: Ports that are tried after a default port that is taken.
_NEXT_PORTS = 20
#: Bytes; larger frames close their connection.
_MOST_BYTES = 1 << 16
_SWITCH_SECONDS = 0.0005
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def app(host: str = DEFAULT_HOST) -> Starlette:
    """Return the application, for a server that listens on ``host``."""

    async def page(request: Any) -> FileResponse:
        return FileResponse(STATIC / "index.html")

    return Starlette(
        routes=[
            Route("/", page),
            Mount("/static", StaticFiles(directory=STATIC)),
            WebSocketRoute("/ws", _tab),
        ],
        middleware=[Middleware(_Guard, host=host)],
    )


class _Guard:
    """Refuse requests under a foreign name, and WebSockets from another site's page.

    A page elsewhere may let its own name point to 127.0.0.1 (DNS rebinding), so ``Host`` must be an
    address, localhost, or the name that the server was started with.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = HTTPConnection(scope).headers
        why_not = self._refusal(scope["type"], headers.get("host", ""), headers.get("origin"))
        if why_not is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await PlainTextResponse(why_not, 403)(scope, receive, send)
        else:
            # Before the handshake: the client gets the status 403.
            await WebSocket(scope, receive, send).close(1008, why_not)

    def _refusal(self, kind: str, host: str, origin: str | None) -> str | None:
        if not self._is_own(host):
            return "this host name is not that of the demo"
        if kind == "websocket" and origin != f"http://{host}":
            return "the page of another site may not connect to the demo"
        return None

    def _is_own(self, host: str) -> bool:
        with suppress(ValueError):
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            ipaddress.ip_address(name)
            return True
        return False


def _with_headers(send: Send) -> Send:
    """Return ``send`` with headers that keep the page to files of this server."""
    extra = {
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in extra.items()),
            ]
        await send(message)

    return sending


async def _tab(socket: WebSocket) -> None:
    """Answer the messages of one tab until it closes."""
    await socket.accept()
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def send(answer: dict[str, Any]) -> None:
        if threading.get_ident() == thread:
            answers.put_nowait(answer)
            return
        with suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(answers.put_nowait, answer)

    session = Session(send)
    tasks = {
        asyncio.create_task(_read(socket, session, answers)),
        asyncio.create_task(_write(socket, answers)),
    }
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()  # raises its exception
    finally:
        session.close()
        for task in tasks:
            task.cancel()


async def _read(
    socket: WebSocket, session: Session, answers: asyncio.Queue[dict[str, Any]]
) -> None:
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        session.receive(message.get("text") or "")
        # A tab that does not take its answers is not read either.
        await answers.join()


async def _write(socket: WebSocket, answers: asyncio.Queue[dict[str, Any]]) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):  # the tab has closed
        while True:
            answer = await answers.get()
            await socket.send_text(json.dumps(answer, allow_nan=False, separators=(",", ":")))
            answers.task_done()


def serve(host: str = DEFAULT_HOST, port: int | None = None, *, open_browser: bool = True) -> None:
    """Serve the demo until Ctrl-C.

    Parameters
    ----------
    host : the address to listen on; 127.0.0.1 is reached from this computer only.
    port : None means 8765, or the next free one.
    open_browser : open the page in the default browser.

    Raises
    ------
    OSError : the port is taken, or the host is no address of this computer.
    """
    listener = listen(host, port)
    address = page_address(host, listener)
    print(f"The demo is at {address} (Ctrl-C ends it)", flush=True)
    if open_browser:
        # A browser in the terminal would block.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    # Compilers and studies run in other threads: let them give way sooner than after 5 ms.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with suppress(KeyboardInterrupt):
        server(host).run(sockets=[listener])


def server(host: str = DEFAULT_HOST) -> uvicorn.Server:
    """Return the server, which does not listen yet."""
    return uvicorn.Server(
        uvicorn.Config(
            app(host),
            log_level="error",
            access_log=False,
            lifespan="off",
            ws_max_size=_MOST_BYTES,
            ws_per_message_deflate=False,  # it takes time, and saves nothing on one computer
            timeout_graceful_shutdown=1,
        )
    )


def listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket; without a port, on the default one or the next free one."""
    ports: Iterable[int] = range(DEFAULT_PORT, DEFAULT_PORT + _NEXT_PORTS)
    if port is not None:
        ports = [port]
    for each in ports:
        try:
            return _bound(host, each)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror or error
                raise OSError(f"cannot listen on port {each} of {host}: {reason}") from None
    if port is None:
        raise OSError(
            f"ports {DEFAULT_PORT} to {DEFAULT_PORT + _NEXT_PORTS - 1} of {host} are all taken; "
            "give another one with --port"
        )
    raise OSError(
        f"port {port} of {host} is taken; give another one with --port, or none for the next free"
    )


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows it would share a port that is taken
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def page_address(host: str, listener: socket.socket) -> str:
    """Return the address of the page; a listener on all addresses is reached on this computer."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{listener.getsockname()[1]}/"
