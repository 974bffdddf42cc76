"""Source distribution → a git repository of one commit, whose hash depends on the recipe alone, and trees with bugs in it."""

from __future__ import annotations

import fnmatch
import os
import subprocess
import tarfile
import tempfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from swe_srl.errors import ApparatusError, ConfigError
from swe_srl.making.mutate import Edit, apply
from swe_srl.making.recipe import Recipe

AUTHOR = "swe-srl"
EMAIL = "swe-srl@localhost"
GITIGNORE = b"__pycache__/\n*.pyc\n.pytest_cache/\n.hypothesis/\n*.egg-info/\n"


class PlantedTree(NamedTuple):
    """The repository with a bug in it."""

    commit: str
    """A commit without parents: the tree without the bug is not in its history."""
    bug_patch: str
    gold_patch: str


class Project:
    """The repository of a recipe, at `folder` with its `.git`."""

    def __init__(self, recipe: Recipe, sdist: Path, folder: Path) -> None:
        """Unpack `sdist` into `folder`, which must be empty or absent, and commit it.

        Raises ConfigError when the recipe's globs match nothing.
        """
        self.recipe = recipe
        self.folder = folder
        self._date = str(_unpack(sdist, recipe, folder))
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("config", "gc.auto", "0")
        self._git("add", "--all", "--force")
        self.commit = self._commit(self._git("write-tree"))
        self._git("update-ref", "refs/heads/main", self.commit)
        for hook in (folder / ".git" / "hooks").glob("*.sample"):
            hook.unlink()

    @property
    def message(self) -> str:
        """The message of every commit."""
        return f"{self.recipe.package} {self.recipe.version}"

    @property
    def commit_variables(self) -> dict[str, str]:
        """What makes a commit of the same tree have the same hash, anywhere."""
        return {
            "GIT_AUTHOR_NAME": AUTHOR,
            "GIT_AUTHOR_EMAIL": EMAIL,
            "GIT_AUTHOR_DATE": f"{self._date} +0000",
            "GIT_COMMITTER_NAME": AUTHOR,
            "GIT_COMMITTER_EMAIL": EMAIL,
            "GIT_COMMITTER_DATE": f"{self._date} +0000",
        }

    @cached_property
    def files(self) -> list[str]:
        """Every tracked file, sorted."""
        return self._git("ls-files").splitlines()

    @cached_property
    def source_files(self) -> list[str]:
        """The files to plant bugs in. Raises ConfigError when there is none."""
        found = [path for path in self.files if _matches(path, self.recipe.sources) and not self.is_test(path)]
        if not found:
            raise ConfigError(
                f"recipe {self.recipe.package}: sources {', '.join(self.recipe.sources)} match no file of the project"
            )
        return found

    def is_test(self, path: str) -> bool:
        """Whether a file belongs to what grading restores."""
        return any(path == test or path.startswith(f"{test}/") for test in self.recipe.tests)

    def read(self, path: str) -> bytes:
        """The bytes of a file, without any bug."""
        return (self.folder / path).read_bytes()

    def plant(self, path: str, edit: Edit) -> PlantedTree:
        """The repository with one edit: its commit, and the patches there and back. The work tree stays as it is."""
        with tempfile.TemporaryDirectory(prefix="swe-srl-plant-") as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            mutated = Path(scratch) / "mutated"
            mutated.write_bytes(apply(self.read(path), edit))
            blob = self._git("hash-object", "-w", str(mutated))
            mode = "100755" if os.access(self.folder / path, os.X_OK) else "100644"
            self._git("read-tree", self.commit, variables=index)
            self._git("update-index", "--cacheinfo", f"{mode},{blob},{path}", variables=index)
            tree = self._git("write-tree", variables=index)
        return PlantedTree(self._commit(tree), self._diff(self.commit, tree), self._diff(tree, self.commit))

    def planted(self, patch: bytes) -> str | None:
        """The commit, without parents, of the tree that `patch` makes of this one; None when it does not apply."""
        if not patch.strip():
            return self.commit
        with tempfile.TemporaryDirectory(prefix="swe-srl-plant-") as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            (Path(scratch) / "patch").write_bytes(patch)
            self._git("read-tree", self.commit, variables=index)
            try:
                self._git("apply", "--cached", "--whitespace=nowarn", str(Path(scratch) / "patch"), variables=index)
            except ApparatusError:
                return None
            return self._commit(self._git("write-tree", variables=index))

    def _commit(self, tree: str) -> str:
        return self._git("commit-tree", tree, "-m", self.message, variables=self.commit_variables)

    def _diff(self, before: str, after: str) -> str:
        options = (
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--no-renames",
            "--full-index",
            "--diff-algorithm=myers",
            "-U3",
        )
        return self._git("diff", *options, before, after) + "\n"

    def _git(self, *arguments: str, variables: dict[str, str] | None = None) -> str:
        # the user's and the machine's git configuration must not reach into the hashes and the patches
        clean = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C",
        }
        command = ["git", "-c", "core.autocrlf=false", "-c", "safe.directory=*", *arguments]
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=clean | (variables or {}), capture_output=True, check=True
            )
        except FileNotFoundError as error:
            raise ApparatusError("there is no git on this machine: install git, then run again") from error
        except subprocess.CalledProcessError as error:
            raise ApparatusError(
                f"git {arguments[0]} failed in {self.folder}: {error.stderr.decode(errors='replace').strip()}"
            ) from error
        return done.stdout.decode().rstrip("\n")


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _unpack(sdist: Path, recipe: Recipe, folder: Path) -> int:
    """Write the wanted files of a source distribution, without its top folder; the newest of their times in seconds."""
    newest = 0
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(sdist) as archive:
            for member in archive:
                path = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))
                wanted = _matches(path, recipe.include) and not _matches(path, recipe.exclude)
                if not member.isfile() or not wanted or ".." in PurePosixPath(path).parts:
                    continue
                content = archive.extractfile(member)
                assert content is not None
                _write(folder / path, content.read(), executable=bool(member.mode & 0o100))
                newest = max(newest, int(member.mtime))
    except (tarfile.TarError, OSError) as error:
        raise ApparatusError(f"cannot unpack {sdist}: {error}: remove it and run again") from error
    if not newest:
        raise ConfigError(
            f"recipe {recipe.package}: include {', '.join(recipe.include)} matches no file of {sdist.name}"
        )
    if not (folder / ".gitignore").exists():
        _write(folder / ".gitignore", GITIGNORE, executable=False)
    return newest


def _write(path: Path, data: bytes, *, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755 if executable else 0o644)
