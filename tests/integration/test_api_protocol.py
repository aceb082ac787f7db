"""What a connection bears: bytes, headers, seconds, and how many there are. Over real sockets, with short times."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from launcher.api.protocol import Bounds
from tests.api import PATIENCE_S, listening, wait_for

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 8 * 1024 * 1024
# Short, and yet long enough for whoever is not late on a machine that is loaded.
SHORT_S = 1.0


class App:
    """Answers at once, or when it is told to; counts whose body broke off."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.held = 0
        self.broken_off = 0
        paths = {"/healthz": self.quick, "/size": self.size, "/hold": self.hold, "/large": self.large}
        paths |= {"/refused": self.refused, "/stream": self.stream}
        self.app = Starlette(routes=[Route(path, each, methods=["GET", "POST"]) for path, each in paths.items()])

    async def quick(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def size(self, request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except ClientDisconnect:
            self.broken_off += 1
            raise

    async def hold(self, request: Request) -> Response:
        self.held += 1
        while not self.go.is_set():
            await asyncio.sleep(0.01)
        return PlainTextResponse("held")

    async def large(self, request: Request) -> Response:
        return PlainTextResponse(b"x" * LARGE)

    async def refused(self, request: Request) -> Response:
        return PlainTextResponse("no", 401)

    async def stream(self, request: Request) -> Response:
        async def ticks() -> "contextlib.AsyncIterator[bytes]":
            while not self.go.is_set():
                yield b"tick\n"
                await asyncio.sleep(0.05)
            yield b"over\n"

        return StreamingResponse(ticks())


@contextmanager
def served(bounds: Bounds = Bounds(), keep_alive_s: int = 75) -> Iterator[tuple[App, int]]:
    app = App()
    with listening(app.app, bounds, timeout_keep_alive=keep_alive_s, timeout_graceful_shutdown=1) as url:
        try:
            yield app, int(url.rpartition(":")[2])
        finally:
            app.go.set()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            found += piece
    return found


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The status and the body of one answer."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < size:
        body += connection.recv(65536)
    return int(head[9:12]), body


def problem(found: bytes, status: int, slug: str) -> str:
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), found
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    told = json.loads(body)
    assert told["type"].endswith("/" + slug)
    detail: str = told["detail"]
    return detail


# --- bytes -------------------------------------------------------------------------------------------------------


def endless(kind: str) -> Iterator[bytes]:
    """64 MiB of a request that is never complete."""
    yield {
        "path": b"GET /healthz?",
        "header": b"GET /healthz HTTP/1.1\r\nX-A: ",
        "headers": b"GET /healthz HTTP/1.1\r\n",
        "chunk": b"POST /refused HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        "trailer": b"POST /refused HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ",
        "trailers": b"POST /refused HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    }[kind]
    for _ in range(1024):
        yield b"X-A: bbbbbbb\r\n" * 4682 if kind.endswith("ers") else b"a" * 65536


@pytest.mark.parametrize("kind", ["path", "header", "headers", "chunk", "trailer", "trailers"])
def test_what_never_ends_is_cut_off(kind: str) -> None:
    with served() as (_, port), connected(port) as connection:
        sent = 0
        with contextlib.suppress(ConnectionError):
            for piece in endless(kind):
                connection.sendall(piece)
                sent += len(piece)

        # What the server has not read fills buffers on the way, some MiB.
        assert sent < 40 * 1024 * 1024


@pytest.mark.parametrize("pieces", [1, 2, 500], ids=lambda pieces: f"in {pieces}")
@pytest.mark.parametrize("kind", ["path", "header"])
def test_a_head_that_is_too_large_is_told(kind: str, pieces: int) -> None:
    begin, end = {"path": (b"GET /healthz?", b" HTTP/1.1\r\n\r\n"), "header": (GET[:-2] + b"X-A: ", b"\r\n\r\n")}[kind]
    with served() as (_, port):
        for size, is_refused in ((64 * 1024 - 1, False), (64 * 1024 + pieces, True)):
            head = begin + b"a" * (size - len(begin) - len(end)) + end
            with connected(port) as connection:
                for n in range(pieces):
                    connection.sendall(head[len(head) * n // pieces : len(head) * (n + 1) // pieces])
                if not is_refused:
                    assert answer(connection) == (200, b"ok")
                    continue
                detail = problem(rest_of(connection), 431, "head-too-large")

    assert detail == "the path and the headers have over 64 KiB; send less"


def test_too_many_headers_are_told() -> None:
    def head(count: int) -> bytes:
        return GET[:-2] + b"A: b\r\n" * (count - 1) + b"\r\n"

    with served() as (_, port), connected(port) as fine, connected(port) as connection:
        fine.sendall(head(100))
        assert answer(fine) == (200, b"ok")
        connection.sendall(head(101))

        assert problem(rest_of(connection), 431, "head-too-large") == "the request has over 100 headers; send fewer"


def test_what_is_no_http_is_told() -> None:
    with served() as (_, port), connected(port) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")

        assert problem(rest_of(connection), 400, "malformed-request") == "what came is no request; send HTTP/1.1"


def test_an_upgrade_that_is_not_offered_is_answered_without_it() -> None:
    with served() as (_, port), connected(port) as connection:
        connection.sendall(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")

        assert answer(connection) == (200, b"ok")


def test_requests_one_behind_the_other_are_all_answered_whatever_pieces_they_come_in() -> None:
    body = b"b" * 200_000
    both = (b"POST /size HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + body + GET) * 3
    with served() as (_, port), connected(port) as connection:
        for at in range(0, len(both), 70_001):
            connection.sendall(both[at : at + 70_001])
        answers = [answer_of_two for _ in range(3) for answer_of_two in (b"200000", b"ok")]
        found = b""
        while found.count(b"HTTP/1.1 200") < 6 or not found.endswith(b"ok"):
            found += connection.recv(65536)

    assert [each.rpartition(b"\r\n\r\n")[2] for each in found.split(b"HTTP/1.1 200 OK")[1:]] == answers


def test_a_few_requests_may_wait_for_the_answer_to_another_and_no_more() -> None:
    with served() as (app, port), connected(port) as few, connected(port) as many:
        few.sendall(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + GET * 7)
        many.sendall(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + GET * 3000)

        # Before anything is answered.
        assert rest_of(many) == b""
        app.go.set()
        assert answer(few)[1].startswith(b"held")


# --- seconds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [b"", b"GET /heal", GET[:-2], b"\r\n", GET + b"GET /"], ids=["silent", "path", "head", "empty", "second"]
)
def test_whoever_sends_half_a_head_is_let_go(sent: bytes) -> None:
    with served(Bounds(head_s=SHORT_S)) as (_, port), connected(port) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        found = rest_of(connection)

    assert found.count(b"HTTP/1.1 200") == (sent.startswith(GET))
    assert 0.5 * SHORT_S < time.monotonic() - began < PATIENCE_S / 2


def test_drop_by_drop_is_no_way_to_stay() -> None:
    with served(Bounds(head_s=SHORT_S)) as (_, port), connected(port) as connection:
        assert dripped(connection, b"GET /healthz?", b"a") < PATIENCE_S / 2


@pytest.mark.parametrize("path", [b"/size", b"/refused"], ids=["awaited", "answered before"])
@pytest.mark.parametrize("bounds", [Bounds(silence_s=SHORT_S), Bounds(body_s=SHORT_S)], ids=["silence", "all"])
def test_a_body_that_does_not_come_is_not_waited_for(path: bytes, bounds: Bounds) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n"
    with served(bounds) as (app, port), connected(port) as connection:
        if bounds.silence_s == SHORT_S:
            connection.sendall(head)
            rest_of(connection)
        else:
            assert dripped(connection, head, b"b") < PATIENCE_S / 2

        wait_for(lambda: app.broken_off == (path == b"/size"))


def dripped(connection: socket.socket, head: bytes, drop: bytes) -> float:
    """Send drop by drop until the server closes; returns for how many seconds."""
    connection.sendall(head)
    began = time.monotonic()
    connection.settimeout(0.05)
    while time.monotonic() - began < PATIENCE_S:
        try:
            connection.sendall(drop)
            if not connection.recv(65536):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began


def test_a_slow_body_has_its_time() -> None:
    # Longer than any pause, and than what a head may take.
    bounds = Bounds(silence_s=SHORT_S, head_s=SHORT_S)
    with served(bounds) as (_, port), connected(port) as connection:
        connection.sendall(b"POST /size HTTP/1.1\r\nContent-Length: 30\r\n\r\n")
        began = time.monotonic()
        for _ in range(30):
            time.sleep(0.07 * SHORT_S)
            connection.sendall(b"b")

        assert answer(connection) == (200, b"30")
        assert time.monotonic() - began > 2 * SHORT_S


def test_an_answer_and_a_stream_take_as_long_as_they_take() -> None:
    bounds = Bounds(head_s=0.1, silence_s=0.1, body_s=0.1, stalled_s=0.1)
    with served(bounds) as (app, port), connected(port) as held, connected(port) as stream:
        held.sendall(b"GET /hold HTTP/1.1\r\n\r\n")
        stream.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
        told = b""
        while told.count(b"tick") < 12:
            told += stream.recv(65536)
        app.go.set()

        assert answer(held) == (200, b"held")
        assert b"over" in rest_of_chunks(stream)


def rest_of_chunks(connection: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"0\r\n\r\n"):
        piece = connection.recv(65536)
        assert piece
        found += piece
    return found


def test_between_requests_a_connection_is_kept() -> None:
    with (
        served(Bounds(head_s=0.2, silence_s=0.2, body_s=0.2, stalled_s=0.2)) as (_, port),
        connected(port) as connection,
    ):
        for _ in range(3):
            connection.sendall(GET)
            assert answer(connection) == (200, b"ok")
            # Thrice as long as anything else may take.
            time.sleep(0.6)


def test_a_body_that_ends_behind_its_answer_leaves_a_connection_that_ends() -> None:
    # uvicorn forgets the time of it.
    with served(keep_alive_s=1) as (_, port), connected(port) as connection:
        connection.sendall(b"POST /refused HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
        assert answer(connection) == (401, b"no")
        connection.sendall(b"bb")

        assert rest_of(connection) == b""


def test_whoever_takes_nothing_of_an_answer_is_cut_off() -> None:
    with served(Bounds(stalled_s=0.3)) as (_, port), narrow(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        time.sleep(1.5)
        found = rest_of(connection)

    assert len(found) < LARGE


def test_whoever_takes_it_slowly_is_not() -> None:
    with served(Bounds(stalled_s=0.3), keep_alive_s=1) as (_, port), narrow(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        found = 0
        while found < LARGE:
            piece = connection.recv(LARGE // 16)
            assert piece
            found += len(piece)
            time.sleep(0.005)


def narrow(port: int) -> socket.socket:
    """A connection whose client takes little at once."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.settimeout(PATIENCE_S)
    connection.connect(("127.0.0.1", port))
    return connection


# --- connections -------------------------------------------------------------------------------------------------


def test_whoever_has_waited_longest_gives_way() -> None:
    with served(Bounds(connections=3)) as (_, port), ExitStack() as stack:
        silent, half, kept = (stack.enter_context(connected(port)) for _ in range(3))
        half.sendall(b"POST /size HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        kept.sendall(GET)
        assert answer(kept) == (200, b"ok")
        first, second = (stack.enter_context(connected(port)) for _ in range(2))
        for each in (first, second):
            each.sendall(GET)
            assert answer(each) == (200, b"ok")

        assert rest_of(silent) == b""
        assert rest_of(half) == b""
        kept.sendall(GET)
        assert answer(kept) == (200, b"ok")


def test_where_all_are_at_work_others_are_told_and_health_is_answered() -> None:
    with served(Bounds(connections=2, spare=2)) as (app, port), ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connected(port)).sendall(b"GET /hold HTTP/1.1\r\n\r\n")
        wait_for(lambda: app.held == 2)
        with connected(port) as other:
            other.sendall(b"GET /size HTTP/1.1\r\n\r\n")
            refused = rest_of(other)
        with connected(port) as watching:
            watching.sendall(GET)
            alive = rest_of(watching)

        assert problem(refused, 503, "overloaded") == "all connections are in use; try again in a moment"
        assert b"retry-after: 2" in refused.lower()
        assert alive.startswith(b"HTTP/1.1 200 ")
        assert alive.endswith(b"ok")


def test_a_flood_does_not_use_up_what_there_is() -> None:
    with served(Bounds(connections=10, spare=5)) as (_, port), ExitStack() as stack:
        flood = [stack.enter_context(connected(port)) for _ in range(200)]
        with connected(port) as connection:
            connection.sendall(GET)
            assert answer(connection) == (200, b"ok")
        is_open = []
        for each in flood:
            each.settimeout(0.01)
            try:
                is_open.append(bool(each.recv(1)))
            except TimeoutError:
                is_open.append(True)
            except ConnectionError:
                is_open.append(False)

    assert sum(is_open) <= 10
