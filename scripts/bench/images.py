"""Boxes of many images under a cap on the disk: what they take at most, and how often each image is made.

    python scripts/bench/images.py [--images 12] [--mib 600] [--cap-gib 3] [--tasks 48] [--backend docker|bubblewrap]

The tasks come in no order; as in grading, they are put together by their images and run by two workers. A thread looks at
the disk all the while.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swe_srl.fanout import fan_out, grouped
from swe_srl.runtime import SandboxConfig
from swe_srl.runtime.docker import images
from swe_srl.runtime.docker.client import client
from swe_srl.runtime.open import Backend, BoxRequest, backend_of, open_box
from swe_srl.runtime.rootless import store

NAME = "swe-srl/bench-cap"


def main() -> None:
    """Make the contexts, run the tasks, print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--mib", type=int, default=600, help="size of each image beside its base")
    parser.add_argument("--cap-gib", type=float, default=3.0)
    parser.add_argument("--tasks", type=int, default=48)
    parser.add_argument("--backend", default="docker", choices=("docker", "bubblewrap"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o711)
        os.environ |= {"SWE_SRL_CACHE": f"{scratch}/cache", "SWE_SRL_BOXES": f"{scratch}/boxes"}
        contexts = make_contexts(options, Path(scratch))
        archives = archive(contexts, Path(scratch)) if options.backend == "bubblewrap" else None
        config = SandboxConfig(type=options.backend, archives=archives, image_cap_gib=options.cap_gib)
        run(config, contexts, options.tasks)


def make_contexts(options: argparse.Namespace, scratch: Path) -> dict[str, str]:
    """Image → the folder it is built from. The data are one file, cut anew, so that no layer is shared."""
    contexts = {}
    base = images.base_images()[0]
    for number in range(options.images):
        context = scratch / f"context-{number}"
        context.mkdir()
        with (context / "data").open("wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(1 << 20))
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY data /data\n")
        contexts[f"{NAME}:{number}"] = str(context)
    return contexts


def archive(contexts: dict[str, str], scratch: Path) -> Path:
    """A folder of what `docker save` writes."""
    folder = scratch / "archives"
    folder.mkdir()
    for tag, context in contexts.items():
        images.build_image(context, tag, {})
        subprocess.run(["docker", "save", "-o", folder / f"{tag.rpartition(':')[2]}.tar", tag], check=True)
        client().images.remove(tag)
        (Path(context) / "data").unlink()
    return folder


def run(config: SandboxConfig, contexts: dict[str, str], num_tasks: int) -> None:
    """All tasks, by two workers."""
    backend = backend_of(config.type)
    order = [tag for tag in contexts for _ in range(num_tasks // len(contexts))]
    random.Random(0).shuffle(order)
    begun = time.monotonic()
    try:
        with counted(config.type) as made, watched(config, backend, list(contexts)) as seen:
            for outcome in fan_out(
                lambda tag: use(config, tag, contexts[tag]), grouped(order, lambda tag: tag), workers=2
            ):
                if outcome.failure:
                    raise outcome.failure
    finally:
        for tag in contexts:
            backend.image_store(config).remove(tag, ())
    most = max(seen) / 2**30
    print(
        f"{config.type}: {len(order)} tasks of {len(contexts)} images in {time.monotonic() - begun:.0f} s: at most {most:.2f} GiB "
        f"of {config.image_cap_gib:g} ({len(seen)} looks); each image made {min(made.values())} to {max(made.values())} times ({len(made)} made)"
    )


def use(config: SandboxConfig, tag: str, context: str) -> None:
    """One task: a box that reads some of its image."""
    with open_box(config, BoxRequest(tag, "/testbed", context)) as box:
        assert box.run("head -c 1000000 /data | md5sum", timeout_s=60).exit_code == 0


@contextmanager
def counted(kind: str) -> Iterator[Counter[str]]:
    """Counts what is really built, by image, or unpacked, by layer."""
    module, name, place = (images, "build_image", 1) if kind == "docker" else (store, "_unpack", 2)
    made: Counter[str] = Counter()
    make = getattr(module, name)

    def count(*arguments: object) -> None:
        made[str(arguments[place])] += 1
        make(*arguments)

    setattr(module, name, count)
    try:
        yield made
    finally:
        setattr(module, name, make)


@contextmanager
def watched(config: SandboxConfig, backend: Backend, tags: list[str]) -> Iterator[list[int]]:
    """Looks at the disk five times a second."""
    seen: list[int] = []
    ended = threading.Event()
    shelf = backend.image_store(config)

    def look() -> None:
        while not ended.wait(0.2):
            seen.append(shelf.disk_bytes(tags))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield seen
    finally:
        ended.set()
        looker.join()


if __name__ == "__main__":
    main()
