"""Webhooks: what is sent, how it is signed, and where it never goes. The receivers are real servers."""

import base64
import hashlib
import hmac
import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launcher.errors import SecretUnreadable, WebhookFailed
from launcher.reach.egress import Egress, look_up
from launcher.webhooks import (
    MAX_TIMEOUT_S,
    MAX_TRIES,
    check_secret,
    check_url,
    cloud_event,
    next_try,
    send,
    sign,
    verify,
)

AT = datetime(2026, 3, 29, 12, 30, 15, 250_000, tzinfo=UTC)
EVENT = cloud_event("evt-1", "/api/v1/inference/batch", "completed", "batch-1", AT, {"status": "completed", "rows": 5})
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
LOCAL = Egress(("127.0.0.1",))

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@dataclass
class Receiver:
    """A server that gives the answers it was given, one after the other, the last one for ever."""

    answers: list[Answer]
    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    # Set at the end: answers that take their time need not take more.
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/secret-path?a=b"


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    opened: list[tuple[ThreadingHTTPServer, Receiver]] = []

    def start(*answers: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Receiver:
        receiver = Receiver(list(answers))

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers.items()), body))
                answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                try:
                    answer(self)
                except OSError:
                    # The sender has heard enough.
                    self.close_connection = True

            def do_GET(self) -> None:
                receiver.requests.append((self.path, dict(self.headers.items()), b"GET"))

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        server = Server((host, 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        opened.append((server, receiver))
        return receiver

    yield start
    for server, receiver in opened:
        receiver.over.set()
        server.shutdown()
        server.server_close()


def failure(url: str, egress: Egress = LOCAL, timeout_s: float = 5, tls: ssl.SSLContext | None = None) -> WebhookFailed:
    with pytest.raises(WebhookFailed) as caught:
        send(url, EVENT, SECRET, egress, timeout_s, tls)
    assert "secret-path" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


# --- what is sent ------------------------------------------------------------------------------------------------


def test_an_event_is_a_cloud_event() -> None:
    assert EVENT == {
        "specversion": "1.0",
        "id": "evt-1",
        "source": "/api/v1/inference/batch",
        "type": "com.penstock.job.completed",
        "subject": "batch-1",
        "time": "2026-03-29T12:30:15.250000Z",
        "datacontenttype": "application/json",
        "data": {"status": "completed", "rows": 5},
    }


def test_a_receiver_gets_the_event_and_can_verify_it(receive: Callable[..., Receiver]) -> None:
    receiver = receive(status(204))
    send(receiver.url, EVENT, SECRET, LOCAL)

    [(path, headers, body)] = receiver.requests
    assert path == "/hook/secret-path?a=b"
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["webhook-id"] == "evt-1"
    assert json.loads(body) == EVENT
    assert verify(SECRET, headers, body, datetime.now(UTC), 60)
    assert not verify(SECRET, headers, body + b" ", datetime.now(UTC), 60)
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60


def test_without_a_secret_nothing_is_signed(receive: Callable[..., Receiver]) -> None:
    receiver = receive(status(200))
    send(receiver.url, EVENT, None, LOCAL)

    [(_, headers, _)] = receiver.requests
    assert "webhook-signature" not in headers
    assert headers["webhook-id"] == "evt-1"


def test_any_text_can_be_sent(receive: Callable[..., Receiver]) -> None:
    receiver = receive(status(200))
    event = {**EVENT, "data": {"error": "é \ud800 \n 中"}}
    send(receiver.url, event, SECRET, LOCAL)

    assert json.loads(receiver.requests[0][2]) == event


def test_an_address_of_ipv6_is_named_in_brackets(receive: Callable[..., Receiver]) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        receiver = receive(status(200), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    send(f"http://[::1]:{receiver.port}/", EVENT, SECRET, Egress(("::1",)))

    assert receiver.requests[0][1]["host"] == f"[::1]:{receiver.port}"


# --- signatures --------------------------------------------------------------------------------------------------


def test_a_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification's own libraries.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_that_is_plain_text_is_the_key_itself() -> None:
    expected = base64.b64encode(hmac.new("pässword".encode(), b"id.1.body", hashlib.sha256).digest()).decode()

    assert sign("pässword", "id", 1, b"body") == f"v1,{expected}"
    assert (
        sign("whsec_" + base64.b64encode("pässword".encode()).decode().rstrip("="), "id", 1, b"body")
        == f"v1,{expected}"
    )


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_MfKQ 9r8G", "whsec_MfKQ9", "whsec_MfKQé"])
def test_a_secret_that_cannot_sign_is_told_and_not_repeated(secret: str) -> None:
    with pytest.raises(
        SecretUnreadable, match=r"^the webhook's secret (is empty; write a|begins with whsec_ and d)"
    ) as caught:
        check_secret(secret)

    assert "MfKQ" not in str(caught.value)


NOW = datetime(2026, 3, 29, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
SIGNED = {"webhook-id": "id", "webhook-timestamp": STAMP, "webhook-signature": sign(SECRET, "id", int(STAMP), b"body")}


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"webhook-signature": f"v1,AAAA v2,x {SIGNED['webhook-signature']}"}, True),
        ({"webhook-signature": SIGNED["webhook-signature"].removeprefix("v1,")}, False),
        ({"webhook-signature": SIGNED["webhook-signature"].replace("v1,", "v2,")}, False),
        ({"webhook-signature": SIGNED["webhook-signature"][:-3] + "AA="}, False),
        ({"webhook-signature": "v1,é"}, False),
        ({"webhook-signature": "v1,\ud800"}, False),
        ({"webhook-signature": ""}, False),
        ({"webhook-id": "other"}, False),
        ({"webhook-id": ""}, False),
        ({"webhook-id": "é\ud800"}, False),
        ({"webhook-id": f"id.{STAMP}"}, False),
        ({"webhook-timestamp": str(int(STAMP) + 1)}, False),
        ({"webhook-timestamp": f" {STAMP}"}, False),
        ({"webhook-timestamp": f"0{STAMP}"}, False),
        ({"webhook-timestamp": "now"}, False),
        ({"webhook-timestamp": "9" * 500}, False),
    ],
)
def test_only_what_was_signed_is_verified(changes: dict[str, str], valid: bool) -> None:
    assert verify(SECRET, {**SIGNED, **changes}, b"body", NOW, 60) is valid


def test_headers_are_needed_whatever_their_case() -> None:
    assert verify(SECRET, {name.title(): value for name, value in SIGNED.items()}, b"body", NOW, 60)
    for name in SIGNED:
        assert not verify(SECRET, {each: value for each, value in SIGNED.items() if each != name}, b"body", NOW, 60)
    assert not verify("another", SIGNED, b"body", NOW, 60)


@pytest.mark.parametrize(("late_s", "valid"), [(60, True), (61, False), (-60, True), (-61, False)])
def test_a_copy_is_too_old_after_a_while(late_s: int, valid: bool) -> None:
    assert verify(SECRET, SIGNED, b"body", NOW + timedelta(seconds=late_s), tolerance_s=60) is valid


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "retry"),
    [
        *[(code, True) for code in (300, 304, 408, 429, 500, 502, 503, 504, 599)],
        *[(code, False) for code in (400, 401, 403, 404, 405, 409, 410, 422, 451)],
    ],
)
def test_an_answer_tells_whether_to_try_again(code: int, retry: bool, receive: Callable[..., Receiver]) -> None:
    failed = failure(receive(status(code)).url)

    assert failed.retry is retry
    assert str(failed).startswith(f"127.0.0.1 answered {code}")


def test_a_receiver_that_recovers_gets_the_event(receive: Callable[..., Receiver]) -> None:
    receiver = receive(status(500), status(200))
    assert failure(receiver.url).retry

    send(receiver.url, EVENT, SECRET, LOCAL)
    assert [json.loads(body)["id"] for _, _, body in receiver.requests] == ["evt-1", "evt-1"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(code: int, receive: Callable[..., Receiver]) -> None:
    other = receive(status(200))
    failed = failure(receive(status(code, Location=other.url)).url)

    assert str(failed) == f"127.0.0.1 answered {code}, a redirect, and none is followed; name its target"
    assert other.requests == []


def test_who_does_not_answer_in_time_is_tried_again(receive: Callable[..., Receiver]) -> None:
    receiver = receive(lambda handler: receiver.over.wait(30) and None)
    started = time.monotonic()
    failed = failure(receiver.url, timeout_s=0.3)
    took_s = time.monotonic() - started

    assert (str(failed), failed.retry) == ("127.0.0.1 did not answer within 0.3 s", True)
    assert took_s < 3


def test_time_is_counted_for_all_pieces_of_an_answer_together(receive: Callable[..., Receiver]) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not receiver.over.wait(0.05):
            handler.wfile.write(b"x: y\r\n")

    receiver = receive(drip)
    started = time.monotonic()
    failed = failure(receiver.url, timeout_s=0.5)
    took_s = time.monotonic() - started

    assert str(failed) == "127.0.0.1 did not answer within 0.5 s"
    assert took_s < 3


def test_no_receiver_is_given_more_than_the_most(
    receive: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.webhooks.MAX_TIMEOUT_S", 0.3)
    receiver = receive(lambda handler: receiver.over.wait(30) and None)
    failed = failure(receiver.url, timeout_s=1000)

    assert str(failed) == "127.0.0.1 did not answer within 0.3 s"
    assert MAX_TIMEOUT_S == 10


def test_of_a_huge_answer_only_a_little_is_read(receive: Callable[..., Receiver]) -> None:
    sent = [0]
    stopped = threading.Event()

    def pour(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not receiver.over.is_set():
                sent[0] += handler.wfile.write(bytes(65_536)) or 0
        finally:
            stopped.set()

    receiver = receive(pour)
    send(receiver.url, EVENT, SECRET, LOCAL)

    assert stopped.wait(10)
    # What was read, and what the sockets between the two hold.
    assert sent[0] < 64 * 1024 * 1024


def test_an_answer_that_breaks_off_behind_its_status_was_given(receive: Callable[..., Receiver]) -> None:
    def break_off(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    send(receive(break_off).url, EVENT, SECRET, LOCAL)


def test_an_answer_that_is_none_is_tried_again(receive: Callable[..., Receiver]) -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    def babble(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"220 smtp.example.com ESMTP\r\n")

    for answer in (hang_up, babble):
        failed = failure(receive(answer).url)
        assert (str(failed), failed.retry) == ("127.0.0.1 broke off before it answered", True)


def test_nothing_of_an_answer_is_told_or_logged(
    receive: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        failed = failure(receive(status(500, b"the-answer", **{"X-Answer": "the-answer"})).url)

    assert "the-answer" not in str(failed)
    assert "the-answer" not in caplog.text


def test_a_port_where_nobody_listens_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    failed = failure(f"http://127.0.0.1:{port}/secret-path")

    assert str(failed) == "127.0.0.1 cannot be connected to: [Errno 111] Connection refused"
    assert failed.retry


# --- where it goes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_loopback_is_not_reached_unless_allowed(host: str, receive: Callable[..., Receiver]) -> None:
    receiver = receive(status(200))
    failed = failure(f"http://{host}:{receiver.port}/", Egress())

    assert "leads to this machine; name another host, or have it allowed by PENSTOCK_ALLOWED_HOSTS" in str(failed)
    assert not failed.retry
    assert receiver.requests == []


def test_a_name_that_leads_elsewhere_at_the_second_look_is_not_followed(receive: Callable[..., Receiver]) -> None:
    receiver = receive(status(200))
    answers: list[Sequence[str]] = [["127.0.0.1"], ["127.0.0.2"]]
    asked: list[str] = []

    def change(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    send(f"http://hook.example.com:{receiver.port}/", EVENT, SECRET, Egress(("127.0.0.1",), look_up=change))
    failed = failure(f"http://hook.example.com:{receiver.port}/", Egress(("127.0.0.1",), look_up=change))

    # Asked once for each: connected is to what was judged.
    assert asked == ["hook.example.com"] * 2
    assert len(receiver.requests) == 1
    assert receiver.requests[0][1]["host"] == f"hook.example.com:{receiver.port}"
    assert (failed.retry, "leads to this machine" in str(failed)) == (False, True)


def test_the_next_address_is_tried_where_one_does_not_answer(receive: Callable[..., Receiver]) -> None:
    receiver = receive(status(200))
    egress = Egress(("127.0.0.0/8",), look_up=lambda host, port: ["127.0.0.9", "127.0.0.1"])
    send(f"http://hook.example.com:{receiver.port}/", EVENT, SECRET, egress)

    assert len(receiver.requests) == 1


def test_proxies_of_the_environment_are_not_used(
    receive: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, receiver = receive(status(200)), receive(status(200))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    send(receiver.url, EVENT, SECRET, LOCAL)

    assert (len(proxy.requests), len(receiver.requests)) == (0, 1)


def test_a_host_without_an_address_is_tried_again() -> None:
    failed = failure("https://nowhere.invalid/secret-path", Egress())

    assert (str(failed), failed.retry) == ("host 'nowhere.invalid' has no address; check its spelling", True)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("ftp://host/x", "the webhook's url is neither https nor http; write https://host/path"),
        ("file:///etc/passwd", "the webhook's url is neither https nor http"),
        ("//host/x", "the webhook's url is neither https nor http"),
        ("host/x", "the webhook's url is neither https nor http"),
        ("http:///x", "the webhook's url is neither https nor http"),
        ("", "the webhook's url is neither https nor http"),
        ("http://a\nb/", "the webhook's url cannot be read; write https://host/path"),
        ("http://h/\ud800", "the webhook's url cannot be read"),
        ("http://[::1/", "the webhook's url cannot be read"),
        ("http://h:port/", "the webhook's url cannot be read"),
        ("http://user:secret@host/", "the webhook's url holds a user or a password; leave them out, and check the sig"),
        ("http://host\\@evil/", "the webhook's url holds a user or a password"),
        ("http://h:0/", "the webhook's url has a port that cannot be; use one from 1 to 65535"),
        ("http://h:65536/", "the webhook's url has a port that cannot be"),
    ],
)
def test_a_url_that_cannot_be_is_told_before_anything_is_sent(url: str, line: str) -> None:
    with pytest.raises(WebhookFailed) as caught:
        check_url(url)

    assert str(caught.value).startswith(line)
    assert not caught.value.retry
    assert str(failure(url)) == str(caught.value)


# --- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of hook.example.com, signed by itself, with its key."""
    file = tmp_path_factory.mktemp("tls") / "hook.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(file.with_suffix(".key")), "-out", str(file.with_suffix(".crt")), "-days", "2"),
            *("-subj", "/CN=hook.example.com", "-addext", "subjectAltName=DNS:hook.example.com"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.with_suffix(".key").read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.fixture
def served(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


HERE = Egress(("127.0.0.1",), look_up=lambda host, port: ["127.0.0.1"])


def test_a_certificate_is_that_of_the_host_that_was_named(
    receive: Callable[..., Receiver], served: ssl.SSLContext, certificate: Path
) -> None:
    receiver = receive(status(200), tls=served)
    trusting = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
    send(f"https://hook.example.com:{receiver.port}/", EVENT, SECRET, HERE, tls=trusting)
    other = failure(f"https://other.example.com:{receiver.port}/", HERE, tls=trusting)

    assert len(receiver.requests) == 1
    assert "other.example.com cannot be connected to: " in str(other)
    assert "Hostname mismatch" in str(other)
    assert other.retry


def test_a_certificate_that_nobody_signed_is_not_trusted(
    receive: Callable[..., Receiver], served: ssl.SSLContext
) -> None:
    receiver = receive(status(200), tls=served)
    failed = failure(f"https://hook.example.com:{receiver.port}/", HERE)

    assert "CERTIFICATE_VERIFY_FAILED" in str(failed)
    assert receiver.requests == []


# --- again -------------------------------------------------------------------------------------------------------


def test_waits_double_from_five_seconds_to_an_hour_and_end() -> None:
    shortest = [next_try(tries, lambda: 0.0) for tries in range(1, MAX_TRIES)]
    longest = [next_try(tries, lambda: 0.999_999) for tries in range(1, MAX_TRIES)]

    assert shortest[:9] == [5, 10, 20, 40, 80, 160, 320, 640, 1280]
    assert shortest[9:] == [1800, 1800]
    assert max(each for each in longest if each is not None) <= 3600
    assert next_try(MAX_TRIES) is None
    assert next_try(MAX_TRIES + 5) is None


def test_waits_differ() -> None:
    waits = {next_try(3) for _ in range(20)}

    assert len(waits) > 1
    assert all(wait is not None and 20 <= wait < 40 for wait in waits)


def test_the_machines_resolver_is_used_where_none_is_given() -> None:
    assert Egress().look_up is look_up
