"""The folder in which boxes without an engine live: unpacked layers, images that we derived, and a folder per open box.

```
$SWE_SRL_BOXES, or /var/tmp/swe-srl-<uid>
├── layers/<digest>/         an image's layer, unpacked, white-outs as overlayfs wants them; shared by images
├── images/<name>.json       an image that we made of another: its layers and environment
└── boxes/<box>/             owner, pid, layers; upper, work, root, pipes
```
It must lie on a local file system (overlayfs writes to no NFS or Lustre). What boxes write belongs to the account that boxes
run as: the user, or `nobody` where the user is root, so that what breaks out of a box is not root outside.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import TypeAdapter

from swe_srl.errors import ImageMissing, StorageError
from swe_srl.runtime.rootless.archives import ArchivedImage, find_image, layer_bytes, open_layer

_NOBODY = 65534
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Image(NamedTuple):
    """What a box is started from."""

    layers: tuple[str, ...]
    """Folders under `layers`, the lowest first."""
    environment: dict[str, str]


_IMAGE = TypeAdapter(Image)


def account() -> int | None:
    """The uid that boxes run as, where it is not the user's own."""
    return _NOBODY if os.geteuid() == 0 else None


def location() -> Path:
    """Where the folder is or will be."""
    return Path(os.environ.get("SWE_SRL_BOXES", "") or f"/var/tmp/swe-srl-{os.geteuid()}")  # noqa: S108


def store() -> Path:
    """The folder, made where it is missing. Raises StorageError when it is another's."""
    root = location()
    for path in (root, root / "layers", root / "images", root / "boxes"):
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o711)
    if root.stat().st_uid != os.geteuid():
        raise StorageError(f"{root} belongs to another account: name a folder of your own in SWE_SRL_BOXES")
    return root


def image_of(name: str, archives: Path | None) -> Image:
    """The image called `name`, its layers unpacked where they are not yet. Raises ImageMissing or StorageError."""
    derived = store() / "images" / f"{_file_name(name)}.json"
    if derived.is_file():
        return _IMAGE.validate_json(derived.read_bytes())
    if archives is None:
        raise ImageMissing(f"no image {name}: name the folder of image archives as sandbox.archives")
    archived = find_image(archives, name)
    layers = tuple(_ensure_layer(archived, index) for index in range(len(archived.digests)))
    return Image(layers, archived.environment)


def layers_of(name: str, archives: Path | None) -> tuple[str, ...]:
    """The layers of an image, unpacked or not, the lowest first. Raises ImageMissing."""
    derived = store() / "images" / f"{_file_name(name)}.json"
    if derived.is_file():
        return _IMAGE.validate_json(derived.read_bytes()).layers
    if archives is None:
        raise ImageMissing(f"no image {name}: name the folder of image archives as sandbox.archives")
    return tuple(_layer_name(digest) for digest in find_image(archives, name).digests)


def packed_bytes(name: str, archives: Path | None) -> int:
    """What the layers of an archived image that are not unpacked yet take in the archive. Raises ImageMissing."""
    if archives is None or has_derived(name):
        return 0
    image = find_image(archives, name)
    missing = [
        index for index, digest in enumerate(image.digests) if not (store() / "layers" / _layer_name(digest)).is_dir()
    ]
    return sum(layer_bytes(image, index) for index in missing)


def forget_derived(name: str) -> None:
    """An image that we made is no more; its layers stay."""
    (store() / "images" / f"{_file_name(name)}.json").unlink(missing_ok=True)


def has_derived(name: str) -> bool:
    """Whether an image that we made has that name, and all its layers are there."""
    path = store() / "images" / f"{_file_name(name)}.json"
    return path.is_file() and all((store() / "layers" / layer).is_dir() for layer in image_of(name, None).layers)


def keep_derived(name: str, image: Image, upper: Path) -> None:
    """Make `upper`, what a box changed in `image`, one more layer, and the whole the image called `name`."""
    layer = _file_name(name)
    remove_tree(store() / "layers" / layer)
    upper.rename(store() / "layers" / layer)
    path = store() / "images" / f"{layer}.json"
    part = path.with_suffix(".part")
    part.write_bytes(_IMAGE.dump_json(Image((*image.layers, layer), image.environment)))
    part.rename(path)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of that name against every thread and process that uses the store."""
    with (store() / f".{_file_name(name)}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_tree(path: Path) -> None:
    """Remove a folder if it is there, also where a box has taken the right to list or to write from parts of it."""
    if not path.is_dir():
        return
    path.chmod(0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            if not Path(folder, name).is_symlink():
                Path(folder, name).chmod(0o700)
    shutil.rmtree(path)


def give(path: Path) -> None:
    """Make `path` the account's that boxes run as."""
    owner = account()
    if owner is not None:
        os.chown(path, owner, owner)


def _file_name(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-." else "_" for char in name)


def num_bytes_in(folder: Path) -> int:
    """What the files of a folder take on the disk."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += Path(parent, name).lstat().st_blocks * 512
    return total


def _layer_name(digest: str) -> str:
    return digest.partition(":")[2][:16]


def _ensure_layer(image: ArchivedImage, index: int) -> str:
    name = _layer_name(image.digests[index])
    target = store() / "layers" / name
    if not target.is_dir():
        with locked(name):
            if not target.is_dir():
                _unpack(image, index, target)
    return name


def _unpack(image: ArchivedImage, index: int, target: Path) -> None:
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    give(part)
    try:
        with open_layer(image, index) as packed:
            _untar(packed, part)
        _convert_whiteouts(part)
        part.chmod(0o755)
        part.rename(target)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise StorageError(
            f"the disk of {target.parent} is full: free some, or name another folder in SWE_SRL_BOXES"
        ) from error
    finally:
        remove_tree(part)


def _untar(packed: IO[bytes], target: Path) -> None:
    """GNU tar does it: it keeps hard links and modes, and lets no member leave the folder. Devices cannot be made, and are left out."""
    owner = account()
    with tempfile.TemporaryFile() as words, subprocess.Popen(
        ["tar", "--extract", "--same-permissions", "--no-same-owner", "--delay-directory-restore", "--anchored", "--exclude=dev/*", "--exclude=./dev/*"],
        cwd=target, stdin=subprocess.PIPE, stderr=words, user=owner, group=owner, extra_groups=[] if owner else None,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
    ) as tar:  # fmt: skip
        assert tar.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what tar says is told below
            shutil.copyfileobj(_uncompressed(packed), tar.stdin, 1 << 20)
            tar.stdin.close()
        code = tar.wait()
        words.seek(0)
        said = [line for line in words.read().decode("utf-8", "replace").splitlines() if "Cannot mknod" not in line]
    problems = [line for line in said if "Exiting with failure status" not in line]
    if code != 0 and problems:
        raise StorageError(f"an image's layer cannot be unpacked in {target.parent}: {problems[0]}")


def _uncompressed(packed: IO[bytes]) -> IO[bytes]:
    start = packed.read(4)
    packed.seek(0)
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]
    if start == _ZSTD:
        raise ImageMissing(
            "an image's layer is packed with zstd: write it with `skopeo copy --dest-compress-format gzip`, or by `docker save`"
        )
    return packed


def _convert_whiteouts(layer: Path) -> None:
    """An OCI layer marks what it takes away from those below by files `.wh.NAME`; overlayfs by devices 0:0 and an attribute."""
    for folder, _, files in os.walk(layer):
        for name in files:
            if not name.startswith(_WHITEOUT):
                continue
            path = Path(folder, name)
            path.unlink()
            if name == _OPAQUE:
                os.setxattr(folder, "user.overlay.opaque", b"y")
            else:
                gone = path.with_name(name.removeprefix(_WHITEOUT))
                os.mknod(gone, 0o600 | stat.S_IFCHR, os.makedev(0, 0))
                give(gone)
