"""One client's connection.

Requests of a connection are answered one after the other; what a client pipelines waits in its
buffer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from drivetrain.errors import EngineError
from drivetrain_engine.api.answers import (
    chunk,
    error_response,
    render,
    render_hijack,
    render_stream,
)
from drivetrain_engine.api.framing import BodyDecoder, Head, take_head
from drivetrain_engine.api.hijack import LINGER_SECONDS, Tunnel
from drivetrain_engine.api.messages import (
    BodyReader,
    Hijack,
    LiveStream,
    Request,
    Response,
    Stream,
)
from drivetrain_engine.api.router import Route, negotiate
from drivetrain_engine.api.sink import start_pump

if TYPE_CHECKING:
    from drivetrain_engine.api.front import Front

log = logging.getLogger("engine.api")

#: A body that is collected before its handler runs.
MAX_BODY = 16 << 20
_PIPELINE_LIMIT = 64 << 10


class BodyTooLarge(EngineError):
    """A JSON body over :data:`MAX_BODY`."""

    http_status = 413


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._buffer = bytearray()
        self._decoder: BodyDecoder | None = None
        self._head: Head | None = None
        self._request: Request | None = None
        self._route: Route | None = None
        self._collected: list[bytes] = []
        self._collected_size = 0
        self._task: asyncio.Task[None] | None = None
        self._tunnel: Tunnel | None = None
        self._lingering = False
        self._client_ended = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._fd = -1
        self._streaming = False

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._fd = transport.get_extra_info("socket").fileno()
        self._front.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.input(data)
        elif not self._lingering:
            self._buffer += data
            self._advance()

    def eof_received(self) -> bool:
        self._client_ended = True
        if self._tunnel is not None:
            self._tunnel.input_ended()
        elif self._lingering or (self._task is None and self._decoder is None):
            return False
        elif self._decoder is not None and not self._decoder.done:
            self.abort()
            return False
        # A unix client that only closed its sending half still wants the answer; one that is
        # gone shows as a hang-up. TCP does not tell them apart: there a stream ends.
        if self._transport.get_extra_info("peername") and self._streaming:
            return False
        self._front.hangups.watch(self._fd, self.abort)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._front.hangups.forget(self._fd)
        self._front.connections.discard(self)
        self._writable.set()
        if self._request is not None and self._request.stream is not None:
            self._request.stream.finish(broken=not (self._decoder and self._decoder.done))
        if self._tunnel is not None:
            self._tunnel.client_lost()
        elif self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()
        if self._tunnel is not None:
            self._tunnel.pause_output()

    def resume_writing(self) -> None:
        self._writable.set()
        if self._tunnel is not None:
            self._tunnel.resume_output()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    @property
    def finishing(self) -> bool:
        """A short request is under way, worth waiting for at the end."""
        return self._task is not None and not self._streaming and self._tunnel is None

    # -- reading requests

    def _advance(self) -> None:
        """Take what can be taken of the buffer: a head, a body; never past a message."""
        try:
            if self._head is None and self._task is None:
                head = take_head(self._buffer)
                if head is None:
                    return
                self._begin(head)
            if self._decoder is not None and not self._decoder.done:
                self._take_body()
        except EngineError as error:
            self._refuse(error)
            return
        if self._decoder is not None and self._decoder.done and len(self._buffer) > _PIPELINE_LIMIT:
            self._transport.pause_reading()

    def _begin(self, head: Head) -> None:
        self._head = head
        self._decoder = BodyDecoder(head.length)
        version, path = negotiate(head.path)
        route, parameters = self._front.router.resolve(head.method, path)
        self._route = route
        request = Request(
            head.method,
            path,
            head.raw_query,
            head.headers,
            self._front,
            http_minor=head.minor,
            keep_alive=head.keep_alive,
            version=version,
            parameters=parameters,
        )
        self._request = request
        if "100-continue" in head.headers.get("expect", "").lower() and not self._buffer:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if route.streams_body:
            request.stream = BodyReader(self._resume_from_thread)
            self._start()
        if self._decoder.done:
            self._body_complete()

    def _take_body(self) -> None:
        assert self._decoder is not None and self._request is not None
        data = self._decoder.take(self._buffer)
        if self._request.stream is not None:
            if data and self._request.stream.feed(data):
                self._transport.pause_reading()
        elif data:
            self._collected.append(data)
            self._collected_size += len(data)
            if self._collected_size > MAX_BODY:
                raise BodyTooLarge(f"the body is larger than {MAX_BODY} bytes")
        if self._decoder.done:
            self._body_complete()

    def _body_complete(self) -> None:
        assert self._request is not None
        if self._request.stream is not None:
            self._request.stream.finish()
            return
        self._request.body = b"".join(self._collected)
        self._collected = []
        self._collected_size = 0
        self._start()

    def _resume_from_thread(self) -> None:
        def resume() -> None:
            if not self._transport.is_closing():
                self._transport.resume_reading()

        try:
            self._front.loop.call_soon_threadsafe(resume)
        except RuntimeError:  # the loop is closed: the daemon ends
            pass

    def _refuse(self, error: EngineError) -> None:
        """Answer a request that never reached a handler."""
        if self._task is not None:  # a broken body under a running handler
            self.abort()
            return
        whole = self._decoder is not None and self._head is not None and self._drain()
        keep = whole and self._head is not None and self._head.keep_alive
        head_only = self._head is not None and self._head.method == "HEAD"
        response = error_response(error)
        self._transport.write(render(response, keep_alive=keep, head_only=head_only))
        if keep:
            self._front.loop.call_soon(self._next)
        else:
            self._front.keep(self._front.loop.create_task(self._linger()))

    def _drain(self) -> bool:
        """Drop the rest of the body; true when all of it was there."""
        assert self._decoder is not None
        try:
            self._decoder.take(self._buffer)
        except EngineError:
            return False
        return self._decoder.done

    # -- answering

    def _start(self) -> None:
        self._front.requests += 1
        self._front.open_requests += 1
        self._task = self._front.loop.create_task(self._serve())

    async def _serve(self) -> None:
        assert self._request is not None and self._route is not None
        request = self._request
        keep = False
        try:
            try:
                answer = await self._call(self._route, request)
                keep = await self._send(answer, request)
            except EngineError as error:
                keep = self._send_whole(error_response(error), request)
            except Exception as error:
                log.exception("%s %s", request.method, request.path)
                keep = self._send_whole(error_response(error), request)
        except asyncio.CancelledError:
            self._transport.abort()
        except (ConnectionError, OSError):
            self._transport.abort()
        finally:
            self._front.open_requests -= 1
            self._front.last_activity = self._front.loop.time()
            self._task = None
        if self._transport.is_closing():
            return
        if keep and not self._client_ended:
            self._front.loop.call_soon(self._next)
        else:
            await self._linger()

    async def _call(self, route: Route, request: Request) -> Any:
        backend = self._front.backend
        if route.mode == "loop":
            answer = route.handler(backend, request)
            return await answer if asyncio.iscoroutine(answer) else answer
        if route.mode == "thread":
            return await self._front.in_thread(lambda: route.handler(backend, request))
        return await self._front.loop.run_in_executor(
            self._front.pool, route.handler, backend, request
        )

    async def _send(self, answer: Any, request: Request) -> bool:
        if isinstance(answer, Response):
            return self._send_whole(answer, request)
        if isinstance(answer, Stream):
            return await self._send_stream(answer, request)
        if isinstance(answer, LiveStream):
            return await self._send_live(answer, request)
        assert isinstance(answer, Hijack)
        await self._hijack(answer, request)
        return False

    def _send_whole(self, response: Response, request: Request) -> bool:
        whole = request.stream is None or self._drain()
        keep = request.keep_alive and whole and not self._streaming
        if self._streaming:  # the head is out: only an early end can tell of the error
            self._transport.abort()
            return False
        self._transport.write(render(response, keep_alive=keep, head_only=request.method == "HEAD"))
        return keep

    async def _send_stream(self, answer: Stream, request: Request) -> bool:
        sink = start_pump(answer.source, self._front.loop)
        pieces = sink.pieces()
        try:
            first = b""
            if not answer.head_first:
                first = await anext(pieces, b"")
            self._open_stream(answer, request)
            await self._write_piece(first, request)
            try:
                async for piece in pieces:
                    await self._write_piece(piece, request)
            except Exception as error:
                if answer.on_error is None:
                    raise
                await self._write_piece(answer.on_error(error), request)
            return self._end_stream(request)
        finally:
            sink.close()
            if answer.cancel is not None:
                answer.cancel()

    async def _send_live(self, answer: LiveStream, request: Request) -> bool:
        self._open_stream(answer, request)
        try:
            async for piece in answer.source:
                await self._write_piece(piece, request)
        finally:
            await answer.source.aclose()
        return self._end_stream(request)

    def _open_stream(self, answer: Stream | LiveStream, request: Request) -> None:
        self._streaming = True
        if self._client_ended and self._transport.get_extra_info("peername"):
            raise asyncio.CancelledError
        self._transport.write(
            render_stream(
                answer.content_type,
                answer.headers,
                chunked=request.http_minor > 0,
                keep_alive=request.keep_alive and request.http_minor > 0,
            )
        )

    async def _write_piece(self, piece: bytes, request: Request) -> None:
        if not piece:
            return
        if self._transport.is_closing():
            raise asyncio.CancelledError
        self._transport.write(chunk(piece) if request.http_minor else piece)
        if not self._writable.is_set():
            await self._writable.wait()

    def _end_stream(self, request: Request) -> bool:
        if not request.http_minor:
            return False
        self._transport.write(b"0\r\n\r\n")
        return request.keep_alive and (request.stream is None or self._drain())

    async def _hijack(self, answer: Hijack, request: Request) -> None:
        upgrade = "upgrade" in request.headers
        tunnel = Tunnel(self._transport, answer, self._front.in_thread)
        self._transport.write(render_hijack(answer.content_type, upgrade=upgrade))
        self._tunnel = tunnel
        self._transport.resume_reading()
        if self._buffer:
            tunnel.input(bytes(self._buffer))
            self._buffer.clear()
        if self._client_ended:
            tunnel.input_ended()
        await tunnel.serve()

    def _next(self) -> None:
        """Go on to the next request of this connection."""
        self._head = self._decoder = self._request = self._route = None
        self._streaming = False
        self._collected = []
        self._collected_size = 0
        if self._transport.is_closing():
            return
        self._transport.resume_reading()
        if self._buffer:
            self._advance()

    async def _linger(self) -> None:
        """Close without a reset: end our half, read and drop the client's rest for a while."""
        transport = self._transport
        self._lingering = True
        self._tunnel = None
        if transport.is_closing():
            return
        self._buffer.clear()
        loop = self._front.loop
        deadline = loop.time() + LINGER_SECONDS
        while not self._writable.is_set() and not transport.is_closing():
            await self._writable.wait()
        if transport.is_closing():
            return
        if not self._client_ended and transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:
                pass
            transport.resume_reading()
            while not self._client_ended and not transport.is_closing() and loop.time() < deadline:
                await asyncio.sleep(0.005)
        transport.close()
