"""Images come when a box asks for them, and go when the cap says so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swe_srl.errors import ImageMissing
from swe_srl.runtime import SandboxConfig
from swe_srl.runtime.docker.client import client
from swe_srl.runtime.docker.images import build_image
from swe_srl.runtime.open import BoxRequest, backend_of, open_box

pytestmark = [pytest.mark.docker, pytest.mark.session("fresh")]

MIB = 2**20
NUM_IMAGES = 4
IMAGE_MIB = 20


@pytest.fixture(scope="module")
def contexts(base_image: str, tmp_path_factory: pytest.TempPathFactory, archives: Path) -> Iterator[dict[str, str]]:
    """Image → the folder that it is built from; archived too, and not there to begin with."""
    found = {}
    for number in range(NUM_IMAGES):
        context = tmp_path_factory.mktemp(f"image-{number}")
        (context / "data").write_bytes(os.urandom(IMAGE_MIB * MIB))
        (context / "Dockerfile").write_text(f"FROM {base_image}\nCOPY data /data\n")
        tag = f"swe-srl/test-cap:{context.parent.name}-{number}"
        build_image(context, tag, {})
        subprocess.run(["docker", "save", "-o", archives / f"cap-{number}.tar", tag], check=True)
        client().images.remove(tag)
        found[tag] = str(context)
    yield found
    for tag in found:
        subprocess.run(["docker", "rmi", tag], check=False, capture_output=True)


@pytest.fixture
def capped(config: SandboxConfig, contexts: dict[str, str], base_image: str, monkeypatch, tmp_path) -> SandboxConfig:
    """A cap that has room for two of the images, beside the base image where nothing else keeps that."""
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path))  # a list of images of its own
    backend = backend_of(config.type)
    backend.ensure_image(config, base_image, None)
    base = backend.image_store(config).disk_bytes([base_image]) if config.type == "bubblewrap" else 0
    return config.model_copy(update={"image_cap_gib": (base + 2.5 * IMAGE_MIB * MIB) / 2**30})


def test_boxes_of_more_images_than_the_cap_holds_run_one_after_the_other(capped, contexts):
    store = backend_of(capped.type).image_store(capped)
    most = 0
    for tag, context in contexts.items():
        for _ in range(2):
            with open_box(capped, BoxRequest(tag, "/testbed", context)) as box:
                assert box.run("stat -c %s /data", timeout_s=20).output == f"{IMAGE_MIB * MIB}\n"
                most = max(most, store.disk_bytes(list(contexts)))
    assert most <= capped.image_cap_gib * 2**30
    *gone, before, last = contexts
    assert store.has(before)
    assert store.has(last)
    assert not any(store.has(tag) for tag in gone)


def test_an_image_with_an_open_box_stays_until_the_box_is_closed(capped, contexts):
    store = backend_of(capped.type).image_store(capped)
    first, *others = contexts
    with open_box(capped, BoxRequest(first, "/testbed", contexts[first])) as box:
        for tag in others:
            open_box(capped, BoxRequest(tag, "/testbed", contexts[tag])).close()
        assert store.has(first)
        assert box.run("stat -c %s /data", timeout_s=20).output == f"{IMAGE_MIB * MIB}\n"
        assert not store.remove(first, ())
        assert box.run("md5sum /data", timeout_s=20).exit_code == 0
    assert store.remove(first, ())
    assert not store.has(first)


def test_an_image_that_went_in_the_moment_before_its_box_is_made_again(capped, contexts, monkeypatch):
    tag, context = next(iter(contexts.items()))
    backend = type(backend_of(capped.type))
    start, store = backend.start, backend_of(capped.type).image_store(capped)
    gone = []

    def lose_it_once(self, config, image, workdir, name):
        if not gone:
            gone.append(store.remove(image, ()))
        return start(self, config, image, workdir, name)

    monkeypatch.setattr(backend, "start", lose_it_once)
    with open_box(capped, BoxRequest(tag, "/testbed", context)) as box:
        assert box.run("test -f /data", timeout_s=20).exit_code == 0
    assert gone == [True]


def test_an_image_that_is_nowhere_is_said_and_nothing_is_held(capped, tmp_path):
    for _ in range(2):
        with pytest.raises(ImageMissing, match="no-such"):
            open_box(capped, BoxRequest("swe-srl/no-such:1", "/testbed", str(tmp_path)))


def test_an_image_that_goes_while_the_disk_is_looked_at_takes_none(monkeypatch):
    """Another process had evicted one between the list of images and the question for its layers, and the run ended."""
    from swe_srl.runtime.docker.client import client
    from swe_srl.runtime.docker.disk import DockerImageStore

    listed = client().api.images()
    gone = {"Id": "sha256:" + "0" * 64, "RepoTags": ["swe-srl/gone:1"]}
    monkeypatch.setattr(client().api, "images", lambda: [*listed, gone])
    assert DockerImageStore().disk_bytes(["swe-srl/gone:1"]) == 0
