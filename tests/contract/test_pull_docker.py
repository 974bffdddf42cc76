"""Pulling an image from a registry that limits the rate: a real one, of this test's own, behind the engine's own client."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swe_srl.errors import ImageMissing
from swe_srl.runtime.docker import images
from swe_srl.runtime.docker.client import client

pytestmark = pytest.mark.docker

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def small_image() -> tuple[bytes, dict[str, bytes]]:
    """The manifest and the blobs of an image of one file."""
    plain, packed = io.BytesIO(), io.BytesIO()
    for target, mode in ((plain, "w"), (packed, "w:gz")):
        with tarfile.open(fileobj=target, mode=mode) as tar:
            tar.addfile(tarfile.TarInfo("hello"), io.BytesIO())
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(plain.getvalue())]},
        }
    ).encode()
    blobs = {digest_of(data): data for data in (config, packed.getvalue())}
    described = [
        {"mediaType": kind, "size": len(data), "digest": digest_of(data)}
        for kind, data in ((CONFIG, config), (LAYER, packed.getvalue()))
    ]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    return json.dumps(manifest).encode(), blobs


class Registry(ThreadingHTTPServer):
    """Says `toomanyrequests` as often as it is told, then gives the image."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.manifest, self.blobs = small_image()
        self.num_refusals = 0
        self.num_asked = 0


class Answer(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if "/manifests/" in self.path:
            self.server.num_asked += self.command == "GET"
            if "absent" in self.path:
                self._say(
                    404,
                    "application/json",
                    b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}',
                )
            elif self.server.num_refusals > 0:
                self.server.num_refusals -= 1
                self._say(429, "application/json", b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit."}]}')  # fmt: skip
            else:
                self._say(200, MANIFEST, self.server.manifest)
        elif "/blobs/" in self.path:
            self._say(200, "application/octet-stream", self.server.blobs[self.path.rpartition("/")[2]])
        else:
            self._say(200, "application/json", b"{}")

    do_HEAD = do_GET  # noqa: N815  # the name is the library's

    def _say(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", digest_of(data))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def name(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(images, "_FIRST_WAIT_S", 0.05)
    name = f"127.0.0.1:{registry.server_port}/team/small:1"
    yield name
    if images.has_image(name):
        client().images.remove(name)


def test_an_image_is_pulled_when_the_registry_lets_us_again(registry, name):
    registry.num_refusals = 4
    images.ensure_image(name)
    assert images.has_image(name)
    assert registry.num_asked >= 2


def test_a_registry_that_never_lets_us_is_said(registry, name):
    registry.num_refusals = 10**6
    with pytest.raises(ImageMissing, match="limits the rate"):
        images.ensure_image(name)
    assert registry.num_asked >= images._NUM_PULLS


def test_an_image_that_the_registry_does_not_have_is_not_asked_for_again(registry, name):
    with pytest.raises(ImageMissing, match="could not be pulled"):
        images.ensure_image(name.replace("small", "absent"))
    assert registry.num_asked <= 2
