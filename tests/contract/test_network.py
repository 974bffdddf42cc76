"""A box that may reach some hosts: those, and no others, by a proxy that needs no network of the engine's."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swe_srl.runtime import Sandbox, open_sandbox
from swe_srl.runtime.proxy import Request, is_allowed

pytestmark = [pytest.mark.docker, pytest.mark.session("persistent")]

LARGE = bytes(range(256)) * 20_000


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data = LARGE if self.path == "/large" else f"{self.path} {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(str(len(data)))))
        self.end_headers()
        self.wfile.write(str(len(data)).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Of two servers of the host, the first of which a box may reach."""
    servers: list[socketserver.BaseServer] = [ThreadingHTTPServer(("127.0.0.1", 0), Answer) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    yield servers[0].server_address[1], servers[1].server_address[1]
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def reaching(config, base_image, ports) -> Iterator[Sandbox]:
    with open_sandbox(config.model_copy(update={"network": (f"localhost:{ports[0]}",)}), base_image) as box:
        yield box


def fetch(box: Sandbox, url: str, more: str = "") -> str:
    program = f"import urllib.request as r, urllib.error as e\ntry: print(r.urlopen('{url}'{more}).read().decode())\nexcept e.HTTPError as x: print(x.code, x.read().decode())"
    return box.run(f'python3 -c "{program}"', timeout_s=30).output.strip()


def test_an_allowed_host_is_reached_and_another_port_or_name_is_not(reaching, ports):
    allowed, other = ports
    assert fetch(reaching, f"http://localhost:{allowed}/a?b=c") == f"/a?b=c localhost:{allowed}"
    assert (
        fetch(reaching, f"http://localhost:{other}/")
        == f"403 swe-srl: localhost:{other} is not in the allow-list of this box"
    )
    assert fetch(reaching, f"http://127.0.0.1:{allowed}/").startswith("403")


def test_much_goes_both_ways_and_many_at_once(reaching, ports):
    url = f"http://localhost:{ports[0]}"
    assert fetch(reaching, url + "/x", f", data=b'x' * {len(LARGE)}") == str(len(LARGE))
    many = f"(for i in 1 2 3 4 5; do python3 -c \"import urllib.request as r; print(len(r.urlopen('{url}/large').read()))\" & done; wait)"
    assert reaching.run(many, timeout_s=60).output.split() == [str(len(LARGE))] * 5


def test_a_tunnel_to_an_allowed_host_passes_any_bytes_and_to_another_is_refused(reaching, ports):
    tunnel = """
import socket
s = socket.create_connection(('127.0.0.1', 3128))
s.sendall(b'CONNECT localhost:%d HTTP/1.1\\r\\n\\r\\n')
print(s.recv(100).split(b'\\r\\n')[0].decode())
s.sendall(b'GET /in HTTP/1.0\\r\\nHost: tunnel\\r\\n\\r\\n')
print(s.makefile('rb').read().rpartition(b'\\n')[2].decode())
"""
    reaching.write_file("/tmp/tunnel.py", tunnel.encode() % ports[0])
    assert (
        reaching.run("python3 /tmp/tunnel.py", timeout_s=20).output
        == "HTTP/1.1 200 Connection established\n/in tunnel\n"
    )
    reaching.write_file("/tmp/tunnel.py", tunnel.encode() % ports[1])
    assert reaching.run("python3 /tmp/tunnel.py", timeout_s=20).output.startswith("HTTP/1.1 403")


def test_there_is_no_way_round_the_proxy(reaching, ports):
    direct = f"import socket; socket.create_connection(('127.0.0.1', {ports[0]}), 2)"
    assert "refused" in reaching.run(f'python3 -c "{direct}"', timeout_s=20).output
    assert reaching.run("tail -n +3 /proc/net/dev | cut -d: -f1", timeout_s=20).output.split() == ["lo"]


def test_the_box_works_on_after_its_way_out_was_killed(reaching, ports):
    reaching.run("pkill -f 'python3 -u -c'", timeout_s=20)
    assert reaching.run("echo fine", timeout_s=20).output == "fine\n"


@pytest.mark.parametrize(
    ("host", "port", "allowed", "yes"),
    [
        ("pypi.org", 443, ("pypi.org",), True),
        ("PyPI.org", 443, ("pypi.org",), True),
        ("pypi.org", 22, ("pypi.org",), False),
        ("evil-pypi.org", 443, ("pypi.org",), False),
        ("files.example.org", 443, ("*.example.org",), True),
        ("example.org.evil.net", 443, ("*.example.org",), False),
        ("example.org", 8080, ("example.org:8080",), True),
        ("example.org", 443, ("example.org:8080",), False),
        ("example.org", 443, (), False),
    ],
)  # fmt: skip
def test_hosts_are_matched_by_whole_names_and_by_ports(host, port, allowed, yes):
    assert is_allowed(host, port, allowed) is yes


@pytest.mark.parametrize(
    "head", [b"", b"GET / HTTP/1.1\r\n\r\n", b"CONNECT nowhere HTTP/1.1\r\n\r\n", b"\xff\xfe\r\n\r\n", b"GET ftp://x/ HTTP/1.1\r\n\r\n"]
)  # fmt: skip
def test_what_is_no_request_to_a_proxy_is_none(head):
    assert Request.read(head) is None
