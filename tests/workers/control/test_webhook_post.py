"""One POST to a receiver: which addresses it goes to, and when it is over."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.webhooks.answers import Failure
from tests.support.receivers import ALLOWED, FORBIDDEN, receiving
from workers.control import webhook_post

NETWORKS = (ipaddress.ip_network(ALLOWED),)


class Dns:
    """Names with addresses, which may change from one look to the next."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002 - as getaddrinfo
        self.asked.append(host)
        if not self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.answers.pop(0)


def post(
    url: str, *, seconds: float = 5, dns: webhook_post.Resolve = webhook_post.resolve
) -> tuple[int | None, Failure | None]:
    return webhook_post.send(
        url,
        headers={"webhook-id": "evt_1"},
        body=b"{}",
        deadline=time.monotonic() + seconds,
        allowed=NETWORKS,
        resolve=dns,
    )


def reason(found: tuple[int | None, Failure | None]) -> str:
    assert found[1] is not None
    return found[1].reason


def test_a_receiver_gets_the_body_with_the_name_of_its_host() -> None:
    with receiving() as receiver:
        port = receiver.server.server_port
        status, failure = post(f"http://hooks.example:{port}/a?b=c", dns=Dns([ALLOWED]))
        assert (status, failure) == (204, None)
        (received,) = receiver.received
    assert (received.path, received.body) == ("/a?b=c", b"{}")
    assert received.headers["host"] == f"hooks.example:{port}"
    assert received.headers["webhook-id"] == "evt_1"


def test_no_forbidden_address_is_connected_to() -> None:
    with receiving(host=FORBIDDEN) as victim:
        port = victim.server.server_port
        for url, dns in (
            (f"http://{FORBIDDEN}:{port}/", webhook_post.resolve),
            (f"http://localhost:{port}/", webhook_post.resolve),
            (f"http://[::ffff:127.0.0.1]:{port}/", webhook_post.resolve),
            (f"http://2130706433:{port}/", webhook_post.resolve),
            (f"http://0:{port}/", webhook_post.resolve),
            (f"http://hooks.example:{port}/", Dns([FORBIDDEN])),
            (f"http://hooks.example:{port}/", Dns([ALLOWED, FORBIDDEN])),
            (f"http://hooks.example:{port}/", Dns(["8.8.8.8", "169.254.169.254"])),
        ):
            found = reason(post(url, dns=dns))
            assert found == "it cannot be reached: it has an address that is not public", url
        assert victim.received == []


def test_the_address_that_was_checked_is_the_one_that_is_connected_to() -> None:
    with receiving() as receiver, receiving(host=FORBIDDEN) as victim:
        dns = Dns([ALLOWED], [FORBIDDEN], [FORBIDDEN])
        port = receiver.server.server_port
        assert post(f"http://rebinding.example:{port}/", dns=dns) == (204, None)
        assert dns.asked == ["rebinding.example"]
        assert (len(receiver.received), len(victim.received)) == (1, 0)


def test_a_redirect_is_a_failure_and_is_not_followed() -> None:
    with receiving(302, 307) as receiver, receiving(host=FORBIDDEN) as victim:
        receiver.location = victim.url
        for status, phrase in ((302, "Found"), (307, "Temporary Redirect")):
            code, failure = post(receiver.url)
            assert code == status
            assert failure is not None
            assert failure.reason == (
                f"it answered {status} {phrase}, a redirect, which is not followed"
            )
        assert victim.received == []


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver, receiving(host=FORBIDDEN) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert post(receiver.url) == (204, None)
        assert proxy.received == []


@contextmanager
def talking(*, greeting: bytes, drip: bytes = b"", every: float = 0.05) -> Iterator[str]:
    """A server that says this to everyone, and then this again and again."""
    stop = threading.Event()
    with socket.create_server((ALLOWED, 0)) as server:
        server.settimeout(0.1)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    try:
                        request = b""
                        # What is left unread would reset the connection.
                        while not request.endswith(b"{}") and (more := connection.recv(65_536)):
                            request += more
                        connection.sendall(greeting)
                        while drip and not stop.wait(every):
                            connection.sendall(drip)
                        stop.wait(5 if not greeting else 0)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://{ALLOWED}:{server.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    ("greeting", "drip"),
    [
        (b"", b""),  # it never answers
        (b"HTTP/1.1 200 OK\r\n", b"x"),  # a header without end
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),  # it is always about to answer
    ],
)
def test_a_receiver_that_hangs_or_drips_is_over_in_time(greeting: bytes, drip: bytes) -> None:
    with talking(greeting=greeting, drip=drip) as url:
        began = time.monotonic()
        assert reason(post(url, seconds=0.5)) == "it did not answer within 1 s"
        assert time.monotonic() - began < 2


def test_the_body_of_an_answer_is_not_waited_for() -> None:
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n"
    with talking(greeting=endless, drip=b"x") as url:
        began = time.monotonic()
        assert post(url, seconds=5) == (200, None)
        assert time.monotonic() - began < 2


def test_what_is_not_http_and_what_is_not_there_is_explained() -> None:
    with talking(greeting=b"220 mail.example ESMTP\r\n") as url:
        assert reason(post(url)) == "its answer is not HTTP, or the connection ended before it"
    with socket.create_server((ALLOWED, 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in reason(post(f"http://{ALLOWED}:{port}/"))
    assert "cannot be looked up" in reason(post("http://none.example/", dns=Dns()))
    assert "cannot be" in reason(post(f"http://{'a' * 70}.example/"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of hooks.example, signed by itself: certificate and key in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = path.with_name("key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=hooks.example"),
            *("-addext", "subjectAltName=DNS:hooks.example"),
            *("-keyout", str(key), "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + key.read_text())
    return path


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_certificate_is_checked_for_the_name_and_not_the_address(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, *, is_trusted: bool
) -> None:
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    webhook_post._ssl_context.cache_clear()
    with receiving() as receiver:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
        port = receiver.server.server_port
        found = post(f"https://hooks.example:{port}/", dns=Dns([ALLOWED]))
        other = post(f"https://other.example:{port}/", dns=Dns([ALLOWED]))
    webhook_post._ssl_context.cache_clear()
    assert (found == (204, None)) is is_trusted
    assert is_trusted or "CERTIFICATE_VERIFY_FAILED" in reason(found)
    assert "CERTIFICATE_VERIFY_FAILED" in reason(other)
