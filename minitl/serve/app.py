"""The application: its addresses, what each takes and answers, and the description of them.

    GET  /              the page, with /page.js and /page.css
    GET  /api/model     classes, image size and limits
    POST /api/predict   one picture as the body, or several as multipart/form-data
    POST /api/explain   one picture as the body; where the network looked, as a PNG
    GET  /openapi.json  the same for programs (OpenAPI 3.1)

A picture that cannot be read is an answer, never a crash: 422 for a single one, an "error" beside
the others' answers else. See `guard.py` for what is refused before that.
"""

import asyncio
import contextlib
import csv
import io
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

from minitl.models import Model
from minitl.models.arguments import door
from minitl.serve.batching import Batcher, Busy
from minitl.serve.classifier import Classifier
from minitl.serve.guard import HEADER_BYTES, LOOPBACK, Guard, Intake, Limits, Refusal, impatient
from minitl.storage.door import extra

BATCH = 16  # pictures that pass the network together
PAGES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


@door
def create_app(
    model: Model,
    about: Mapping[str, Any],
    prepare: Callable[[Any], Any],
    limits: Limits | None = None,
    hosts: frozenset[str] | None = LOOPBACK,
) -> Any:
    """An ASGI application in which a trained model answers.

    Args:
        model: of one input (N, H, W, 3) and one output (N, m), probabilities.
        about: its metadata: "class_names", "size", how images are read; "name" for the page.
        prepare: makes (N, H, W, 3), RGB, 0-255, what the model takes.
        limits: what requests may take.
        hosts: the names under which it answers, without ports; None for any.

    Raises ImportError that says what to install; ValueError for metadata without classes or size.
    """
    with extra("serving needs Starlette", "serve"):
        from starlette import responses
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect
        from starlette.routing import Route
    for key in ("class_names", "size"):
        if not about.get(key):
            raise ValueError(f"the model does not say its {key}: set model.metadata[{key!r}]")
    limits, name = limits or Limits(), str(about.get("name", model.name))
    service = Service(Classifier(model, about, prepare, limits.pixels), name, limits, responses)

    def refuse(error: Any, status: int | None = None) -> Any:
        status = status or error.status
        headers = {"retry-after": "1"} if status == 503 else {}
        if status in (408, 413):
            headers["connection"] = "close"  # what else is sent is not read
        return responses.JSONResponse({"error": str(error)}, status, headers)

    handlers: dict[Any, Any] = {
        Refusal: lambda request, error: refuse(error),
        Busy: lambda request, error: refuse("too many pictures wait; try again in a moment", 503),
        ClientDisconnect: lambda request, error: refuse("the client went away", 499),
        HTTPException: lambda request, error: refuse(error.detail, error.status_code),
        Exception: lambda request, error: refuse("the server made a mistake: see its log", 500),
    }
    routes = [Route(path, service.page) for path in PAGES]
    routes += [
        Route("/api/model", service.model),
        Route("/openapi.json", service.description),
        Route("/api/predict", service.predict, methods=["POST"]),
        Route("/api/explain", service.explain, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=service.lifespan)
    return Guard(app, hosts, refuse)


class Service:
    """The functions behind the addresses, and what they share; `responses` are Starlette's."""

    def __init__(self, classifier: Classifier, name: str, limits: Limits, responses: Any):
        self.classifier, self.name, self.limits = classifier, name, limits
        self.json, self.response = responses.JSONResponse, responses.Response
        self.intake = Intake(limits)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        self.batcher = Batcher(self.classifier.classify, BATCH, self.limits.waiting)
        self.decoders = ThreadPoolExecutor(os.cpu_count(), "minitl-decode")
        async with self.batcher:
            yield
        self.decoders.shutdown(wait=False, cancel_futures=True)

    async def page(self, request: Any) -> Any:
        file, kind = PAGES[request.url.path]
        text = resources.files("minitl.serve").joinpath("page", file).read_bytes()
        return self.response(text, media_type=kind)

    async def model(self, request: Any) -> Any:
        found = {"name": self.name, "classes": self.classifier.names}
        limits = {"file_bytes": self.limits.file_bytes, "files": self.limits.files}
        return self.json(found | {"size": list(self.classifier.size)} | limits)

    async def description(self, request: Any) -> Any:
        text = resources.files("minitl.serve").joinpath("page", "openapi.json").read_text("utf-8")
        found = json.loads(text)
        found["info"]["description"] += f" The model is {self.name!r}."
        return self.json(found)

    async def predict(self, request: Any) -> Any:
        """One answer per picture, in their order; as CSV where the client asks for it."""
        taken: list[int] = []
        try:
            files = await self._files(request, taken)
            found = await _unless_gone(request, self._answers(files))
        finally:
            self.intake.release(taken)
        bad = all("error" in each for each in found)
        bad = bad and request.query_params.get("errors") != "inline"
        status = 422 if bad else 200
        if "text/csv" in request.headers.get("accept", ""):
            text = _as_csv(found, self.classifier.names)
            return self.response(text, status, media_type="text/csv; charset=utf-8")
        if bad and len(found) == 1:
            return self.json({"error": found[0]["error"]}, status)
        return self.json({"pictures": found}, status)

    async def explain(self, request: Any) -> Any:
        """A PNG (H, W), to be stretched over the picture."""
        taken: list[int] = []
        try:
            parts = [p async for p in self.intake.read(request, self.limits.file_bytes, taken)]
            try:
                image = await self._decoded(b"".join(parts))
                name = request.query_params.get("class")
                work = self.batcher.alone(self.classifier.explain, image, name)
                return self.response(await _unless_gone(request, work), media_type="image/png")
            except (OSError, ValueError) as error:
                raise Refusal(422, str(error)) from None
        finally:
            self.intake.release(taken)

    async def _files(self, request: Any, taken: list[int]) -> list[tuple[str, bytes]]:
        """(name, contents) of each picture in a request. Raises Refusal when there is none."""
        kind = request.headers.get("content-type", "")
        if not kind.lower().startswith("multipart/"):
            parts = self.intake.read(request, self.limits.file_bytes, taken)
            return [(request.query_params.get("name", ""), b"".join([p async for p in parts]))]
        from starlette.formparsers import MultiPartException, MultiPartParser

        class InMemory(MultiPartParser):
            spool_max_size = self.limits.request_bytes + 1  # nothing is written to disk

        body = self.intake.read(request, self.limits.request_bytes, taken)
        parser: Any = InMemory(request.headers, body, max_files=self.limits.files, max_fields=16)  # type: ignore[arg-type]
        try:
            form = await parser.parse()
        except (MultiPartException, ValueError, KeyError, UnicodeError) as error:
            text = getattr(error, "message", None) or "the form cannot be understood"
            raise Refusal(400, str(text)) from None
        sent = [value for _, value in form.multi_items() if hasattr(value, "filename")]
        try:
            files = [(value.filename or "", await value.read()) for value in sent]
        finally:
            await form.close()
        if not files:
            raise Refusal(400, "no picture was sent: add files to the form")
        return files

    async def _answers(self, files: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
        return await asyncio.gather(*(self._answer(name, contents) for name, contents in files))

    async def _answer(self, name: str, contents: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {"name": _base_name(name)}
        if len(contents) > self.limits.file_bytes:
            return found | {"error": f"{len(contents):,} bytes; {self.limits.file_bytes:,} at most"}
        try:
            return found | await self.batcher.ask(await self._decoded(contents))
        except OSError as error:
            return found | {"error": str(error)}

    async def _decoded(self, contents: bytes) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.decoders, self.classifier.read, contents)


async def _unless_gone(request: Any, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, which is given up when the client goes away."""
    work, gone = asyncio.create_task(coroutine), asyncio.create_task(request.receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Refusal(499, "the client went away")
        return work.result()
    finally:
        gone.cancel()
        work.cancel()


def _base_name(name: str) -> str:
    """A file's name without folders and control characters, at most 200 letters long."""
    name = re.sub(r"[\x00-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", name)[-4000:]
    return name.replace("\\", "/").rpartition("/")[2][:200]


def _as_csv(found: list[dict[str, Any]], names: list[str]) -> str:
    """The table of `minitl predict --csv`, with a column for what is wrong with a picture."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["name", "class", *names, "error"])
    for each in found:
        p = each.get("probabilities", {})
        cells = [f"{p[name]:.6f}" if p else "" for name in names]
        writer.writerow([each["name"], each.get("class", ""), *cells, each.get("error", "")])
    return file.getvalue()


def run(
    app: Any,
    host: str,
    port: int,
    limits: Limits,
    started: Callable[[str, Callable[[], None]], None],
) -> None:
    """Serve an application until it is interrupted.

    `started` is told the page's address, and given a function that ends the server. Port 0 takes
    any that is free. Raises OSError when the address cannot be had.
    """
    with extra("serving needs uvicorn", "serve"):
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=impatient(H11Protocol, limits.seconds),
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=5,
        server_header=False,
        access_log=False,
        log_level="warning",
        ws="none",
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                shown = f"[{host}]" if ":" in host else host
                place = self.servers[0].sockets[0].getsockname()[1]
                started(f"http://{shown}:{place}/", lambda: setattr(self, "should_exit", True))

    server = Server(config)
    with contextlib.suppress(SystemExit):  # uvicorn's own, when it cannot listen
        server.run()
    if not server.started:
        raise OSError(f"cannot listen at {host}, port {port}: is another server there?")
