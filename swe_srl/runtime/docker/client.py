"""The container engine: one client per process, and its errors as ours.

Every object that we make carries the label `swe-srl`; a box also says which process owns it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import docker.errors
import requests.exceptions
from docker import DockerClient
from docker.models.containers import Container

from swe_srl.errors import EngineUnavailable, ImageMissing, SandboxError

LABEL = "swe-srl"
"""`box` on a container, `image` on an image that we built."""
OWNER_LABEL = "swe-srl.owner"
"""`<host name>:<pid>:<start time of that process>`."""
NAME_LABEL = "swe-srl.name"
"""What the box is for, for people who read `docker ps`."""

_lock = threading.Lock()
_clients: dict[int, DockerClient] = {}


def client() -> DockerClient:
    """The docker client of this process (also after a fork). Raises EngineUnavailable."""
    with _lock:
        found = _clients.get(os.getpid())
        if found is None:
            try:
                found = docker.from_env(max_pool_size=64, timeout=120)
                found.ping()
            except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
                raise EngineUnavailable(
                    f"no container engine answers ({_first_line(error)}): start Docker, or run scripts/ensure_docker.sh as root"
                ) from error
            _clients[os.getpid()] = found
    return found


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Errors of the engine while `doing` something, as ours: ImageMissing, EngineUnavailable or SandboxError."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise ImageMissing(f"{doing}: {_explanation(error)}: build or pull the image first") from error
    except docker.errors.APIError as error:
        raise SandboxError(f"{doing}: {_explanation(error)}") from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise EngineUnavailable(
            f"{doing}: the container engine stopped answering ({_first_line(error)}): is it still running?"
        ) from error


def remove_container(container: Container) -> None:
    """Remove a container whatever it does; one that is gone already is as good. Raises SandboxError or EngineUnavailable."""
    with engine_errors(f"removing box {container.short_id}"):
        try:
            container.remove(force=True, v=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            # 409: another thread or process is removing it.
            if error.status_code != 409:
                raise


def _explanation(error: docker.errors.APIError) -> str:
    return _first_line(error.explanation or error)


def _first_line(error: object) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
