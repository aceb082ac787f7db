"""A server that lets everybody in as PostgreSQL would, and then never says a word again."""

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What a client asks for first, if it may encrypt: SSLRequest and GSSENCRequest, protocol 53.2.12.
_ENCRYPTIONS = (80877103, 80877104)


class _Mute(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while True:
            (length,) = struct.unpack("!I", self._read(4))
            (code,) = struct.unpack("!I", self._read(length - 4)[:4])
            if code not in _ENCRYPTIONS:
                break
            self.request.sendall(b"N")
        parameters = {"server_version": "15.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
        let_in = b"R" + struct.pack("!II", 8, 0)
        for name, value in parameters.items():
            text = f"{name}\0{value}\0".encode()
            let_in += b"S" + struct.pack("!I", 4 + len(text)) + text
        self.request.sendall(let_in + b"K" + struct.pack("!III", 12, 1, 1) + b"Z" + struct.pack("!I", 5) + b"I")
        while self.request.recv(65536):
            pass

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.request.recv(length - len(data))
            if not piece:
                raise ConnectionError("the client is gone")
            data += piece
        return data


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients come and go."""


@contextmanager
def mute_postgres() -> Iterator[str]:
    """The URI of such a server."""
    with _Server(("127.0.0.1", 0), _Mute) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"postgresql://u:s3cret@127.0.0.1:{server.server_address[1]}/db"
        finally:
            server.shutdown()
            thread.join()
