"""Boxes whose owner is dead → removed, so that a killed process leaves nothing behind once another starts."""

from __future__ import annotations

from collections.abc import Callable

from docker import DockerClient

from swe_srl.runtime.docker.client import LABEL, OWNER_LABEL, engine_errors, remove_container
from swe_srl.runtime.docker.client import client as default_client
from swe_srl.runtime.processes import owner_label, owner_lives


def reap(client: DockerClient | None = None, *, even_alive: bool = False) -> int:
    """Remove every box of this host whose owner no longer lives (or every box at all); how many there were.

    Raises EngineUnavailable.
    """
    return _remove(client or default_client(), lambda owner: even_alive or not owner_lives(owner))


def reap_own() -> int:
    """Remove every box that this process has left open; how many there were. Raises EngineUnavailable."""
    mine = owner_label()
    return _remove(default_client(), lambda owner: owner == mine)


def _remove(engine: DockerClient, doomed: Callable[[str], bool]) -> int:
    with engine_errors("looking for abandoned boxes"):
        found = engine.containers.list(all=True, filters={"label": f"{LABEL}=box"}, ignore_removed=True)
    boxes = [box for box in found if doomed(box.labels.get(OWNER_LABEL, ""))]
    for box in boxes:
        remove_container(box)
    return len(boxes)
