"""A small HTTP server that plays the service: it answers what a test tells it to, and keeps what it was asked."""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request. The path is as it came, the headers' names are in small letters."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """An answer.

    Args:
        body: JSON of it; bytes go as they are.
        pieces: in place of the body, written one after the other, without a length: the end is that of the connection.
        drop: the connection is closed: before the answer, or, where there is one, before all of it is out.
        hold: the answer waits for this.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] | None = None
    drop: bool = False
    hold: threading.Event | None = None


Play = Callable[[Asked], Reply]


class Stage:
    """What is answered, by method and path; several answers are given in turn, the last one again and again."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self._plays: dict[tuple[str, str], list[Reply | Play]] = {}
        self._lock = threading.Lock()

    def on(self, method: str, path: str, *replies: "Reply | Play") -> None:
        self._plays[method, path] = list(replies)

    def reply(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            plays = self._plays.get((asked.method, asked.path))
            if plays is None:
                return problem(404, "not-found", f"there is no {asked.path}")
            play = plays.pop(0) if len(plays) > 1 else plays[0]
        return play if isinstance(play, Reply) else play(asked)

    def asked_for(self, method: str, path: str) -> list[Asked]:
        return [each for each in self.asked if (each.method, each.path) == (method, path)]


def problem(status: int, slug: str, detail: str, **further: Any) -> Reply:
    headers = {"Content-Type": "application/problem+json", **further.pop("headers", {})}
    told = {
        "type": f"https://penstock.dev/problems/{slug}",
        "title": slug.replace("-", " "),
        "status": status,
        "detail": detail,
        "instance": "/",
        **further,
    }
    return Reply(status, told, headers)


def sent(kind: str, data: Any, id: str | None = None) -> bytes:
    """A server-sent event."""
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def stream(*pieces: bytes, drop: bool = False, hold: threading.Event | None = None) -> Reply:
    return Reply(200, headers={"Content-Type": "text/event-stream"}, pieces=pieces, drop=drop, hold=hold)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stage: Stage

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        data = self.rfile.read(length)
        parts = urlsplit(self.path)
        asked = Asked(
            self.command,
            parts.path,
            parse_qs(parts.query),
            {name.lower(): value for name, value in self.headers.items()},
            json.loads(data) if data else None,
        )
        reply = self.stage.reply(asked)
        if reply.hold is not None and reply.pieces is None:
            reply.hold.wait(60)
        if reply.drop and reply.body is None and reply.pieces is None:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.pieces is not None:
            self._write_pieces(reply)
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        body = b"" if reply.body is None else body
        if "Content-Type" not in reply.headers:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if reply.drop else body)
        self.close_connection = self.close_connection or reply.drop

    def _write_pieces(self, reply: Reply) -> None:
        # Chunked: a connection that ends before the last chunk is a broken one.
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in reply.pieces or ():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        if reply.hold is not None:
            reply.hold.wait(60)
        if reply.drop:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PATCH = do_DELETE = _answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that has had enough closes the connection; that is what some tests are about.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def playing() -> Iterator[Stage]:
    """Run a server on a free loopback port until the block ends."""
    stage = Stage()
    handler = type("Handler", (_Handler,), {"stage": stage})
    server = _Server(("127.0.0.1", 0), handler)
    stage.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stage
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
