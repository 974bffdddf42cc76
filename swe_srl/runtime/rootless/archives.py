"""A folder of image archives → the image of a name: its layers in order, and its environment.

Three kinds are read, each as a tar file or as a folder: what `docker save` and `podman save` write (`manifest.json`), an OCI
layout (`index.json`, as `skopeo copy … oci:DIR:NAME` writes it; OCI image-spec 1.1), and a plain root file system as
`NAME.tar`, whose image has the name `NAME` with `__` for `/` and the last `@` for `:`.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from swe_srl.errors import ImageMissing

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class ArchivedImage(NamedTuple):
    """An image in an archive, not yet unpacked."""

    archive: Path
    names: tuple[str, ...]
    layers: tuple[str, ...]
    """Members of the archive, each a tar, the lowest first; empty when the archive is the one layer itself."""
    digests: tuple[str, ...]
    """Of each layer's tar, uncompressed (`rootfs.diff_ids`)."""
    environment: dict[str, str]


def find_image(folder: Path, name: str) -> ArchivedImage:
    """The image called `name` in the archives of `folder`. Raises ImageMissing, which says what is there."""
    if not folder.is_dir():
        raise ImageMissing(
            f"no folder {folder}: put there what `docker save` or `skopeo copy` wrote, and name it as sandbox.archives"
        )
    known: list[str] = []
    for path in sorted(folder.iterdir()):
        for image in images_in(path):
            if name in image.names or f"{name}:latest" in image.names:
                return image
            known += image.names
    raise ImageMissing(
        f"no image {name} in the archives of {folder} ({', '.join(known[:5]) or 'it holds none'}"
        f"{f' and {len(known) - 5} more' if len(known) > 5 else ''}): write it there with `docker save -o FILE {name}`"
    )


def images_in(path: Path) -> tuple[ArchivedImage, ...]:
    """The images in one archive; none where it is no archive."""
    if path.is_file() and not tarfile.is_tarfile(path):
        return ()
    status = (path / "index.json" if path.is_dir() and (path / "index.json").is_file() else path).stat()
    return _images_in(path, status.st_mtime_ns, status.st_size)


@contextmanager
def open_layer(image: ArchivedImage, index: int) -> Iterator[IO[bytes]]:
    """The bytes of a layer as they are in the archive, perhaps compressed."""
    with ExitStack() as stack:
        if image.layers:
            yield stack.enter_context(_Archive.open(image.archive)).read(image.layers[index])
        else:
            yield stack.enter_context(image.archive.open("rb"))


def layer_bytes(image: ArchivedImage, index: int) -> int:
    """Of a layer as it is in the archive."""
    with open_layer(image, index) as packed:
        return packed.seek(0, io.SEEK_END)


@lru_cache(maxsize=4096)
def _images_in(path: Path, _mtime_ns: int, _size: int) -> tuple[ArchivedImage, ...]:
    with _Archive.open(path) as archive:
        if archive.has("manifest.json"):
            return tuple(_docker_image(archive, entry) for entry in archive.json("manifest.json"))
        if archive.has("index.json"):
            return tuple(_oci_images(archive, archive.json("index.json")))
    if path.is_dir():
        return ()
    name = ":".join(path.name.removesuffix(".tar").replace("__", "/").rsplit("@", 1))
    digest = hashlib.sha256(f"{path.resolve()} {_mtime_ns} {_size}".encode()).hexdigest()
    return (ArchivedImage(path, (name,), (), (f"file:{digest}",), {}),)


def _docker_image(archive: _Archive, entry: dict[str, Any]) -> ArchivedImage:
    config = archive.json(entry["Config"])
    return _image(archive, tuple(entry.get("RepoTags") or ()), tuple(entry["Layers"]), config)


def _oci_images(archive: _Archive, index: dict[str, Any]) -> Iterator[ArchivedImage]:
    for described in index["manifests"]:
        annotations = described.get("annotations", {})
        names = tuple(annotations[key] for key in _NAME_ANNOTATIONS if key in annotations)
        content = archive.json(_blob(described["digest"]))
        if "manifests" in content:  # an index of platforms
            content = archive.json(_blob(_this_platform(content["manifests"])["digest"]))
        layers = tuple(_blob(layer["digest"]) for layer in content["layers"])
        yield _image(archive, names, layers, archive.json(_blob(content["config"]["digest"])))


def _this_platform(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    import platform

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    fitting = [m for m in manifests if m.get("platform", {}).get("architecture") == machine]
    return (fitting or manifests)[0]


def _image(archive: _Archive, names: tuple[str, ...], layers: tuple[str, ...], config: dict[str, Any]) -> ArchivedImage:
    variables = (config.get("config") or {}).get("Env") or []
    environment = dict(variable.split("=", 1) for variable in variables if "=" in variable)
    # Docker names Docker Hub's images in full in its annotations, and in short everywhere else.
    short = tuple(name.removeprefix("docker.io/").removeprefix("library/") for name in names)
    return ArchivedImage(
        archive.path, tuple(dict.fromkeys((*names, *short))), layers, tuple(config["rootfs"]["diff_ids"]), environment
    )


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


class _Archive:
    """A tar file or a folder."""

    def __init__(self, path: Path, tar: tarfile.TarFile | None) -> None:
        self.path = path
        self._tar = tar

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[_Archive]:
        if path.is_dir():
            yield cls(path, None)
            return
        try:
            with tarfile.open(path) as tar:
                yield cls(path, tar)
        except (tarfile.TarError, KeyError, json.JSONDecodeError) as error:
            raise ImageMissing(f"{path} is not a whole image archive ({error}): write it again") from error

    def has(self, name: str) -> bool:
        if self._tar is None:
            return (self.path / name).is_file()
        return name in self._members

    def read(self, name: str) -> IO[bytes]:
        if self._tar is None:
            return (self.path / name).open("rb")
        file = self._tar.extractfile(self._members[name])
        assert file is not None
        return file

    def json(self, name: str) -> Any:
        with self.read(name) as file:
            return json.load(file)

    @cached_property
    def _members(self) -> dict[str, tarfile.TarInfo]:
        assert self._tar is not None
        return {member.name.removeprefix("./"): member for member in self._tar.getmembers()}
