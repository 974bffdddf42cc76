"""Where a project is → its files in one archive, pinned by a digest and kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from swe_srl.assets import cache_dir
from swe_srl.errors import ConfigError, UserError
from swe_srl.making.download import fetch_sdist
from swe_srl.making.recipe import Recipe

if TYPE_CHECKING:
    from git import Repo

_GIT_URL = re.compile(r"^(?:git\+)?(?:https?|ssh|git|file)://|^[\w.-]+@[\w.-]+:|\.git$")
_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")


class Source(NamedTuple):
    """A project's files in one archive, pinned by its digest."""

    archive: Path
    name: str
    version: str
    repository: Path | None
    """A clone with history, to mine commits from; None where there is none."""
    commit: str = ""
    address: str = ""
    """Where it came from, as `open_source` takes it."""


def is_source(target: str) -> bool:
    """Whether `target` names a repository, a folder or an archive, and no recipe."""
    return bool(_GIT_URL.search(target)) or target.endswith(_ARCHIVES) or (Path(target).is_dir())


def open_source(target: str, *, revision: str = "HEAD") -> Source:
    """Fetch what `target` names. Raises UserError when there is nothing there, ApparatusError when it cannot be fetched."""
    if target.endswith(_ARCHIVES):
        path = Path(target)
        if not path.is_file():
            raise UserError(f"no file {path}: give a source distribution, a folder, or a git repository")
        name, version = _name_and_version(path)
        return Source(_keep(path.read_bytes(), path.name), name, version, None, address=str(path.resolve()))
    if _GIT_URL.search(target) or (Path(target) / ".git").exists():
        return _from_git(target, revision)
    folder = Path(target)
    name, version = folder.resolve().name, "0"
    with tempfile.TemporaryDirectory(prefix="swe-srl-source-") as scratch:
        archive = Path(scratch) / "source.tar"
        with tarfile.open(archive, "w") as held:
            for path in sorted(folder.rglob("*")):
                if (
                    path.is_file()
                    and not path.is_symlink()
                    and ".venv" not in path.parts
                    and "__pycache__" not in path.parts
                ):
                    info = held.gettarinfo(str(path), f"{name}-{version}/{path.relative_to(folder)}")
                    info.mtime = 0
                    with path.open("rb") as content:
                        held.addfile(info, content)
        return Source(
            _keep(archive.read_bytes(), f"{name}-{version}.tar"), name, version, None, address=str(folder.resolve())
        )


def archive_of(recipe: Recipe) -> Path:
    """The archive of a recipe's project. Raises ConfigError where it is not the one of the recipe, and what fetching it does."""
    if not recipe.source:
        return fetch_sdist(recipe)
    archive = open_source(recipe.source, revision=recipe.revision or "HEAD").archive
    if hashlib.sha256(archive.read_bytes()).hexdigest() != recipe.sha256:
        raise ConfigError(
            f"recipe {recipe.package}: {recipe.source} is not what it was (sha256 {recipe.sha256[:12]}…): make the recipe again"
        )
    return archive


def _from_git(target: str, revision: str) -> Source:
    from git import Repo
    from git.exc import GitCommandError, InvalidGitRepositoryError, NoSuchPathError, ODBError

    address = target.removeprefix("git+")
    if Path(address).exists():
        address = str(Path(address).resolve())
    name = PurePosixPath(address.rstrip("/")).name.removesuffix(".git")
    clone = cache_dir("repositories") / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    try:
        if clone.is_dir():
            repository = Repo(clone)
            if not _has(repository, revision):
                repository.git.fetch("origin", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", prune=True)
        else:
            _clone(address, clone)
            repository = Repo(clone)
        commit = repository.commit(revision).hexsha
        content: bytes = repository.git.archive(
            commit, format="tar", prefix=f"{name}-{commit[:8]}/", stdout_as_string=False, strip_newline_in_stdout=False
        )
    except (GitCommandError, InvalidGitRepositoryError, NoSuchPathError, ODBError, ValueError) as error:
        words = (str(getattr(error, "stderr", "") or error).strip().splitlines() or ["no reason given"])[-1].strip()
        raise UserError(
            f"{target} at {revision} cannot be read as a git repository: {words}: check its address and the revision"
        ) from error
    return Source(_keep(content, f"{name}-{commit[:8]}.tar"), name, commit[:8], clone, commit, address)


def _clone(address: str, clone: Path) -> None:
    """A bare clone with its whole history; nothing is left of one that was stopped halfway but a folder of another name."""
    from git import Repo

    with tempfile.TemporaryDirectory(prefix=f"{clone.name}-", dir=clone.parent) as scratch:
        half = Path(scratch) / "clone"
        Repo.clone_from(address, half, bare=True, multi_options=["--no-local"])
        # files that a project leaves out of its releases (tests, often) are wanted, and all as they are
        (half / "info").mkdir(exist_ok=True)
        (half / "info" / "attributes").write_text("* -export-ignore -export-subst -text -filter\n")
        with contextlib.suppress(OSError):  # another process was faster: its clone is as good
            half.rename(clone)


def _has(repository: Repo, revision: str) -> bool:
    """Whether a clone holds a commit, named in full: a branch or tag may have moved since."""
    return bool(re.fullmatch(r"[0-9a-f]{40}", revision)) and bool(
        repository.git.cat_file("-t", revision, with_exceptions=False) == "commit"
    )


def _keep(content: bytes, name: str) -> Path:
    """The archive in the cache, where a recipe that pins its digest finds it."""
    folder = cache_dir("sdists") / hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.is_file():
        scratch = path.with_suffix(".part")
        scratch.write_bytes(content)
        scratch.replace(path)
    return path


def _name_and_version(archive: Path) -> tuple[str, str]:
    stem = archive.name
    for suffix in _ARCHIVES:
        stem = stem.removesuffix(suffix)
    name, _, version = stem.rpartition("-")
    return (name, version) if name and version[:1].isdigit() else (stem, "0")
