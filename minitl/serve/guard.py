"""What stands before the application: sizes, times and addresses are checked before all else.

`Guard` refuses requests under another host's name (a page elsewhere whose name was made to point
here) or sent by another site's page, counts a body while it arrives, and adds the headers by which
a browser asks nothing of others. `Impatient` closes connections that never end their headers. Each
refusal is an answer with its status and one sentence.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEADER_BYTES = 16_384
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take. All are at least 1.

    file_bytes      of one picture's file
    files           in one request
    request_bytes   of one request's body
    pixels          of one picture, before it is decoded
    seconds         to send a request
    held_bytes      of bodies that are arriving or waiting, of all clients together
    waiting         pictures that wait for the network, of all clients together
    connections     that are open
    """

    file_bytes: int = 25_000_000
    files: int = 64
    request_bytes: int = 100_000_000
    pixels: int = 100_000_000
    seconds: float = 20.0
    held_bytes: int = 500_000_000
    waiting: int = 512
    connections: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 1:
                raise ValueError(f"Limits: {field.name} must be at least 1, got {value!r}")


class Refusal(Exception):
    """An answer with this status and sentence, instead of what was asked for."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Guard:
    """The application behind checks of names and origins; `hosts` are those it answers to.

    Of a server on the loopback these are its names; None means any, for one that others reach.
    """

    def __init__(self, app: Any, hosts: frozenset[str] | None, refuse: Any):
        self.app, self.hosts, self.refuse = app, hosts, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        answer = None
        if sum(map(len, headers)) + sum(map(len, headers.values())) > HEADER_BYTES:
            answer = self.refuse(Refusal(431, f"at most {HEADER_BYTES:,} bytes of headers"))
        elif self.hosts is not None and _name(host) not in self.hosts:
            answer = self.refuse(Refusal(400, "this server answers to its own name alone"))
        elif origin is not None and origin.partition("://")[2] != host:
            answer = self.refuse(Refusal(403, "another site's page may not use this server"))
        return await (answer or self.app)(scope, receive, send_with_headers)


def _name(host: str) -> str:
    """'localhost' of 'localhost:8000', '[::1]' of '[::1]:8000'."""
    end = host.find("]") + 1 or (host.find(":") if ":" in host else len(host))
    return host[:end].lower()


class Intake:
    """The bytes of bodies that are held, of all clients together."""

    def __init__(self, limits: Limits):
        self.limits, self.held = limits, 0

    async def read(self, request: Any, most: int, taken: list[int]) -> AsyncIterator[bytes]:
        """The parts of a request's body. `taken` collects their sizes, for `release`.

        Raises Refusal: 413 past `most` bytes, 408 past the time, 503 when too much is held.
        """
        told = request.headers.get("content-length", "0")
        too_large = Refusal(413, f"at most {most:,} bytes may be sent here")
        if told.isdecimal() and int(told[:20]) > most:
            raise too_large
        deadline = asyncio.get_running_loop().time() + self.limits.seconds
        parts = aiter(request.stream())
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError:
                text = f"the request was not sent within {self.limits.seconds:g} s"
                raise Refusal(408, text) from None
            taken.append(len(part))
            self.held += len(part)
            if sum(taken) > most:
                raise too_large
            if self.held > self.limits.held_bytes:
                raise Refusal(503, "too much is being sent at once; try again in a moment")
            yield part

    def release(self, taken: list[int]) -> None:
        """What was taken is needed no longer."""
        self.held -= sum(taken)
        taken.clear()


def impatient(base: Any, seconds: float) -> type:
    """uvicorn's protocol `base`, closing a connection whose headers are not there in time."""

    class Impatient(base):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.patience = self.loop.call_later(seconds, self.give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self.patience.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Bytes after an answer begin another request, with headers of its own."""
            if self.cycle is not None and self.cycle.response_complete:
                self.patience.cancel()
                self.patience = self.loop.call_later(seconds, self.give_up)
                self.answered = self.cycle
            super().data_received(data)

        def give_up(self) -> None:
            if self.cycle is None or self.cycle is getattr(self, "answered", None):
                text = b"the headers were not sent in time"
                head = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
                head += b"content-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(text)
                self.transport.write(head + text)
                self.transport.close()

    return Impatient
