"""Unpacked images as something that takes disk space; see `ImageStore`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from swe_srl.errors import ImageMissing
from swe_srl.runtime.rootless.store import (
    forget_derived,
    layers_of,
    locked,
    num_bytes_in,
    packed_bytes,
    remove_tree,
    store,
)


class RootlessImageStore:
    """See `ImageStore`."""

    def __init__(self, archives: Path | None) -> None:
        self._archives = archives

    def has(self, image: str) -> bool:
        """See `ImageStore.has`: whether all its layers are unpacked."""
        try:
            return all((store() / "layers" / layer).is_dir() for layer in layers_of(image, self._archives))
        except ImageMissing:
            return False

    def disk_bytes(self, images: Sequence[str]) -> int:
        """See `ImageStore.disk_bytes`."""
        layers = {layer for image in images for layer in self._layers(image)}
        return sum(_num_bytes(store() / "layers" / layer) for layer in layers if (store() / "layers" / layer).is_dir())

    def expected_bytes(self, image: str) -> int | None:
        """See `ImageStore.expected_bytes`."""
        with contextlib.suppress(ImageMissing):
            return packed_bytes(image, self._archives)
        return None

    def remove(self, image: str, keep: Sequence[str]) -> bool:
        """See `ImageStore.remove`."""
        mine = self._layers(image)
        with locked("layers"):
            in_use = _layers_in_use()
            if mine and mine[-1] in in_use:
                return False
            for layer in set(mine) - in_use - {layer for other in keep for layer in self._layers(other)}:
                remove_tree(store() / "layers" / layer)
            forget_derived(image)
        return True

    def _layers(self, image: str) -> tuple[str, ...]:
        with contextlib.suppress(ImageMissing):
            return layers_of(image, self._archives)
        return ()


def remove_unused() -> tuple[int, int]:
    """Remove every image that we made and every layer that no open box stands on; (how many layers went, how many stay)."""
    with locked("layers"):
        in_use = _layers_in_use()
        layers = list((store() / "layers").iterdir())
        for path in (store() / "images").iterdir():
            path.unlink()
        for layer in layers:
            if layer.name not in in_use:
                remove_tree(layer)
    return len(layers) - len(in_use), len(in_use)


def _layers_in_use() -> set[str]:
    """Layers that an open box, of whatever process, stands on."""
    found: set[str] = set()
    for path in (store() / "boxes").glob("*/layers"):
        with contextlib.suppress(OSError, ValueError):
            found |= set(json.loads(path.read_text()))
    return found


@lru_cache(maxsize=4096)
def _num_bytes(layer: Path) -> int:
    return num_bytes_in(layer)
