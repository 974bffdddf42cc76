"""`swe-srl clean`: boxes, images and caches that swe-srl made → gone."""

from __future__ import annotations

from typing import Annotated

import typer


def clean(
    images: Annotated[
        bool, typer.Option(help="Also remove the images that swe-srl built, the base image included.")
    ] = True,
    caches: Annotated[bool, typer.Option("--caches", help="Also empty the cache folder (downloads, wheels).")] = False,
    running: Annotated[
        bool, typer.Option("--running", help="Also remove boxes that a living process still uses.")
    ] = False,
) -> None:
    """Remove the boxes and images that swe-srl made; with --caches the cache folder too."""
    import shutil

    from swe_srl.assets import cache_dir
    from swe_srl.cli.console import say
    from swe_srl.errors import EngineUnavailable
    from swe_srl.runtime.rootless.store import location

    try:
        _clean_engine(images=images, running=running)
    except EngineUnavailable as error:
        say(f"containers and their images stay: {error}")
    if location().is_dir():
        _clean_rootless(images=images, running=running)
    if caches:
        folder = cache_dir(".").resolve()
        shutil.rmtree(folder)
        say(f"{folder} removed")


def _clean_engine(*, images: bool, running: bool) -> None:
    from swe_srl.cli.console import say
    from swe_srl.runtime.docker.images import remove_images
    from swe_srl.runtime.docker.reaper import reap

    say(f"{reap(even_alive=running)} boxes removed")
    if images:
        removed, kept = remove_images()
        say(f"{len(removed)} images removed" + (f"; still in use: {', '.join(kept)}" if kept else ""))


def _clean_rootless(*, images: bool, running: bool) -> None:
    from swe_srl.cli.console import say
    from swe_srl.runtime.rootless.backend import RootlessBackend
    from swe_srl.runtime.rootless.disk import remove_unused

    say(f"{RootlessBackend().reap(even_alive=running)} boxes without an engine removed")
    if images:
        removed, kept = remove_unused()
        say(f"{removed} unpacked layers removed" + (f"; still in use: {kept}" if kept else ""))
