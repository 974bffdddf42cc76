"""Image name (+ Dockerfile) → an image that the engine has."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from swe_srl.errors import ImageMissing, SandboxError
from swe_srl.runtime.docker.client import LABEL, client, engine_errors

OURS = "swe-srl/"
"""Prefix of images that only this machine has."""
BASE_PREFIX = "swe-srl/base:"
CONTEXT_LABEL = "swe-srl.context"
"""Digest of what an image was built from."""
_NUM_LAST_LINES = 5
_RATE_LIMIT = re.compile(r"toomanyrequests|too many requests|rate limit|\b429\b", re.IGNORECASE)
_NUM_PULLS = 7
_FIRST_WAIT_S = 5.0
_LONGEST_WAIT_S = 300.0
IN_USE = 409
"""Status of the engine's answer when an image or a box cannot go yet."""

_registry_lock = threading.Lock()
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def lock_of(image: str) -> threading.Lock:
    """Held by the thread of this process that makes `image`."""
    with _registry_lock:
        return _locks[image]


def has_image(image: str) -> bool:
    """Whether the engine has `image`. Raises EngineUnavailable."""
    import docker.errors

    with engine_errors(f"looking for image {image}"):
        try:
            client().images.get(image)
        except docker.errors.ImageNotFound:
            return False
    return True


def base_images() -> list[str]:
    """Tags of the base images that the engine has, newest first. Raises EngineUnavailable."""
    with engine_errors("listing base images"):
        found = client().images.list(name=BASE_PREFIX.rstrip(":"))
    return [tag for image in found for tag in image.tags]


def remove_images() -> tuple[list[str], list[str]]:
    """Remove every image labelled as ours; (what was removed, what is still in use). Raises EngineUnavailable."""
    import docker.errors

    removed: list[str] = []
    kept: list[str] = []
    with engine_errors("listing our images"):
        found = client().images.list(filters={"label": f"{LABEL}=image"})
    for image in found:
        for name in image.tags or [str(image.id)]:
            with engine_errors(f"removing image {name}"):
                try:
                    client().images.remove(name)
                except docker.errors.ImageNotFound:
                    continue
                except docker.errors.APIError as error:
                    if error.status_code != IN_USE:
                        raise
                    kept.append(name)
                else:
                    removed.append(name)
    return removed, kept


def ensure_image(image: str, context: str | None = None) -> None:
    """Make sure that the engine has `image`: build it where `context` holds a Dockerfile, else pull it.

    An image that we built from another context than the one that stands there now is built again.
    Threads that ask for the same image wait for one of them. Raises ImageMissing or EngineUnavailable.
    """
    with lock_of(image):
        if has_image(image) and not _is_outdated(image, context):
            return
        if context is not None and (Path(context) / "Dockerfile").is_file():
            build_image(context, image, {CONTEXT_LABEL: context_digest(context)})
        elif image.startswith(BASE_PREFIX):
            raise ImageMissing(f"the base image {image} is not there: make it with scripts/base_image.sh")
        else:
            _pull(image)


def context_digest(context_dir: str | Path) -> str:
    """Digest of a Dockerfile and of the files that it names in COPY and ADD; folders count by their name only."""
    text = (Path(context_dir) / "Dockerfile").read_text()
    digest = hashlib.sha256(text.encode())
    for line in re.findall(r"^\s*(?:COPY|ADD)\s+(.+)$", text, re.MULTILINE):
        for word in line.split()[:-1]:
            path = Path(context_dir) / word
            digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


def _is_outdated(image: str, context: str | None) -> bool:
    if context is None or not (Path(context) / "Dockerfile").is_file():
        return False
    with engine_errors(f"looking at image {image}"):
        labels = client().images.get(image).labels or {}
    return CONTEXT_LABEL in labels and labels[CONTEXT_LABEL] != context_digest(context)


def build_image(context_dir: str | Path, tag: str, labels: Mapping[str, str]) -> None:
    """Build `context_dir`/Dockerfile as `tag`, labelled as ours. Raises ImageMissing with the builder's last words."""
    dockerfile = Path(context_dir) / "Dockerfile"
    if not dockerfile.is_file():
        raise ImageMissing(f"image {tag} cannot be built: there is no {dockerfile}")
    base = re.search(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", dockerfile.read_text(), re.MULTILINE)
    if base and base.group(1).startswith(BASE_PREFIX):
        ensure_image(base.group(1))
    elif base and base.group(1).startswith(OURS) and not has_image(base.group(1)):
        project = base.group(1).removeprefix(OURS).partition(":")[0]
        raise ImageMissing(
            f"image {tag} stands on {base.group(1)}, which is not there: build it again with "
            f"`swe-srl tasks make {project} --out DIR`, where DIR is the task repository"
        )
    log: list[str] = []
    problem = ""
    try:
        with engine_errors(f"building image {tag} from {dockerfile}"):
            # The classic builder needs no plug-in; the host's network works where there is no bridge.
            # Read to its end also after an error: a stream that is left open leaks its connection.
            for line in client().api.build(
                path=str(context_dir),
                tag=tag,
                rm=True,
                forcerm=True,
                network_mode="host",
                labels={LABEL: "image", **labels},
                use_config_proxy=False,
                decode=True,
            ):
                log.append(str(line.get("stream", "")))
                problem = problem or str(line.get("error", ""))
    except SandboxError as error:
        raise ImageMissing(str(error)) from error
    if problem:
        last = [line.strip() for line in "".join(log).splitlines() if line.strip()][-_NUM_LAST_LINES:]
        raise ImageMissing(
            f"image {tag} does not build from {dockerfile}: {problem.strip()}; the last lines: {' | '.join(last)}"
        )


def _pull(image: str) -> None:
    """Pull `image`; where the registry limits the rate, try again, each time after twice as long. Raises ImageMissing."""
    import tenacity

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_rate_limit),
        wait=tenacity.wait_exponential(_FIRST_WAIT_S, _LONGEST_WAIT_S) + tenacity.wait_random(0, _FIRST_WAIT_S),
        stop=tenacity.stop_after_attempt(_NUM_PULLS),
        reraise=True,
    )
    try:
        attempts(_pull_once, image)
    except (ImageMissing, SandboxError) as error:
        if _is_rate_limit(error):
            raise ImageMissing(
                f"image {image}: its registry limits the rate, after {_NUM_PULLS} tries still ({error}): wait, or `docker login`"
            ) from error
        raise ImageMissing(
            f"image {image} is not there and could not be pulled ({error}): load it with `docker load`, or give a Dockerfile to build it from"
        ) from error


def _pull_once(image: str) -> None:
    with engine_errors(f"pulling image {image}"):
        client().images.pull(image)


def _is_rate_limit(error: BaseException) -> bool:
    return isinstance(error, SandboxError | ImageMissing) and bool(_RATE_LIMIT.search(str(error)))
