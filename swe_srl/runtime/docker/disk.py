"""The engine's images as something that takes disk space; see `ImageStore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import docker.errors

from swe_srl.runtime.docker.client import client, engine_errors
from swe_srl.runtime.docker.images import IN_USE, has_image

_layers: dict[str, dict[Any, int]] = {}
"""Image id → its layers' sizes. An id names one content for ever."""


class DockerImageStore:
    """See `ImageStore`."""

    def has(self, image: str) -> bool:
        """See `ImageStore.has`."""
        return has_image(image)

    def disk_bytes(self, images: Sequence[str]) -> int:
        """See `ImageStore.disk_bytes`."""
        with engine_errors("listing images"):
            ids = {tag: found["Id"] for found in client().api.images() for tag in found["RepoTags"] or (found["Id"],)}
        mine = {tag if ":" in tag else f"{tag}:latest" for tag in images}
        union: dict[Any, int] = {}
        for tag in mine & set(ids):
            union |= _layers_of(ids[tag])
        for tag in set(ids) - mine:
            for layer in _layers_of(ids[tag]):
                union.pop(layer, None)
        return sum(union.values())

    def expected_bytes(self, image: str) -> int | None:
        """See `ImageStore.expected_bytes`: neither a build nor a registry says."""
        del image
        return None

    def remove(self, image: str, keep: Sequence[str]) -> bool:
        """See `ImageStore.remove`; the engine itself keeps layers that others need."""
        del keep
        with engine_errors(f"removing image {image}"):
            try:
                client().images.remove(image)
            except docker.errors.ImageNotFound:
                return True
            except docker.errors.APIError as error:
                if error.status_code != IN_USE:
                    raise
                return False
        return True


def _layers_of(image_id: str) -> dict[Any, int]:
    """Sizes by what a layer is told from others by: when and by what it was made; none of an image that has just gone."""
    if image_id not in _layers:
        with engine_errors(f"asking for the layers of image {image_id}"):
            try:
                history = client().api.history(image_id)  # type: ignore[no-untyped-call]
            except docker.errors.ImageNotFound:  # another process, or thread, has removed it since the list was made
                return {}
        _layers[image_id] = {(row["Created"], row["CreatedBy"], row["Size"]): row["Size"] for row in history}
    return _layers[image_id]
