"""Send requests at a fixed rate, whatever becomes of those before, and take how long each answer takes.

A request's time begins when it was due, not when it came to be sent: while a server stands still, all requests that
were due meanwhile count as late, as they would for their senders.
"""

import argparse
import asyncio
import gc
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Answers that take longer count as failed.
PATIENCE_S = 30


class Client:
    """Keeps connections open, and opens another when all are in use."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.opened = 0

    async def send(self, request: bytes) -> int:
        """Send a request and read its whole answer; returns its status."""
        if self._free:
            reader, writer = self._free.pop()
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            self.opened += 1
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        return int(head[9:12])

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._free:
            writer.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("an answer without Content-Length")


def _as_sent(request: dict[str, str], host: str) -> bytes:
    body = request.get("body", "").encode()
    lines = [f"{request['method']} {request['path']} HTTP/1.1", f"Host: {host}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if "key" in request:
        lines.append(f"Idempotency-Key: {request['key']}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _load(host: str, port: int, requests: list[bytes], rate: float) -> dict[str, Any]:
    client = Client(host, port)
    took_ms: list[float] = [0.0] * len(requests)
    late_ms: list[float] = [0.0] * len(requests)
    answers: list[str] = [""] * len(requests)

    async def send(n: int, due: float) -> None:
        late_ms[n] = 1000 * (time.perf_counter() - due)
        try:
            answers[n] = str(await asyncio.wait_for(client.send(requests[n]), PATIENCE_S))
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            answers[n] = type(error).__name__
        took_ms[n] = 1000 * (time.perf_counter() - due)

    begun = time.perf_counter()
    sending = []
    for n in range(len(requests)):
        due = begun + n / rate
        # Also when it is late: whoever waits for answers must come to read them.
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sending.append(asyncio.create_task(send(n, due)))
    await asyncio.gather(*sending)
    client.close()
    return {"took_ms": took_ms, "late_ms": late_ms, "answers": answers, "connections": client.opened}


def main() -> None:
    """Load a server."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("url", help="http://host:port of the server")
    parser.add_argument("requests", type=Path, help="JSON: a list of method, path, and perhaps body and key")
    parser.add_argument("result", type=Path, help="JSON to write: times, answers")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    args = parser.parse_args()
    where = urlsplit(args.url)
    assert where.hostname is not None
    assert where.port is not None
    requests = [_as_sent(request, where.netloc) for request in json.loads(args.requests.read_text())]
    # A pause of ours is no pause of the server's.
    gc.collect()
    gc.disable()
    args.result.write_text(json.dumps(asyncio.run(_load(where.hostname, where.port, requests, args.rate))))


if __name__ == "__main__":
    main()
