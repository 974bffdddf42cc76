"""Repository → Recipe: a git repository, a folder or a source distribution of a Python project, looked at and pinned.

What a recipe of ours says by hand is found out here: where the sources and the tests are, what the tests need, what of them
does not pass. The recipe is written beside the tasks, so that the same tasks can be made again, and corrected by hand.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from swe_srl.benchmarks.patches import is_test_file
from swe_srl.errors import ConfigError, UserError
from swe_srl.making.archive import Source
from swe_srl.making.needs import read_cfg_gently, read_toml_gently, requirements_of, resolve
from swe_srl.making.recipe import Recipe

_NOT_SOURCES = ("setup.py", "conftest.py", "noxfile.py", "tasks.py", "versioneer.py")
_NOT_PACKAGES = re.compile(r"tests?|testing|docs?|examples?|benchmarks?|scripts|tools|build|dist")
_RUNNER = ("pytest>=7,<9",)


def recipe_of(
    source: Source, *, num_tasks: int, seed: int = 0, needs: Sequence[str] = (), tests: Sequence[str] = ()
) -> Recipe:
    """The recipe of a project, its wheels pinned and in the cache.

    Args:
        source: the project.
        num_tasks: how many bugs are wanted.
        seed: of the order in which they are tried.
        needs: requirements of the tests beyond those that the project states.
        tests: folders or files of tests, where they are not found by themselves.

    Raises ConfigError when sources or tests cannot be found, ApparatusError when a requirement cannot be had as a wheel.
    """
    with tempfile.TemporaryDirectory(prefix="swe-srl-source-") as scratch:
        tree = Path(scratch)
        files = _unpacked(source.archive, tree)
        found_tests = tuple(tests) or _tests_in(files)
        root, packages = _packages_in(files)
        stated = requirements_of(tree, files)
        version_file = _version_file(tree)
        if not found_tests or not packages:
            what = "tests: give --tests" if packages else "Python package: is this its top folder"
            raise ConfigError(f"{source.name}: cannot find its {what}")
        name = _project_name(tree, source.name)
    wheels = resolve([*_RUNNER, *stated, *needs], exclude=name)
    return Recipe(
        package=name,
        version=source.version,
        sha256=hashlib.sha256(source.archive.read_bytes()).hexdigest(),
        licence="see the project",
        source=source.address,
        revision=source.commit,
        split="train",
        seed=seed,
        num_tasks=num_tasks,
        include=("*",),
        sources=tuple(f"{package}/*.py" if not package.endswith(".py") else package for package in packages),
        tests=found_tests,
        import_root=root,
        version_file="" if version_file in files else version_file,
        wheels=wheels,
        max_failing=40,
        loose=True,
    )


def _unpacked(archive: Path, folder: Path) -> list[str]:
    """The files of an archive without its top folder; only those that are looked into are written to `folder`."""
    files = []
    try:
        with tarfile.open(archive) as held:
            for member in held:
                path = "/".join(PurePosixPath(member.name).parts[1:])
                if not member.isfile() or not path or ".." in PurePosixPath(path).parts:
                    continue
                files.append(path)
                if path in ("pyproject.toml", "setup.cfg", "tox.ini", "pytest.ini", "PKG-INFO", "setup.py") or (
                    path.endswith(".txt") and path.count("/") <= 1
                ):
                    content = held.extractfile(member)
                    assert content is not None
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).write_bytes(content.read())
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{archive} is no archive that can be read: {error}") from error
    return sorted(files)


def _tests_in(files: Sequence[str]) -> tuple[str, ...]:
    """The uppermost folders called `test` or `tests` that hold tests; else the files of tests beside each other."""
    roots = set()
    for path in files:
        if is_test_file(path):
            parts = path.split("/")[:-1]
            root = next(("/".join(parts[: n + 1]) for n, part in enumerate(parts) if part in ("test", "tests")), "")
            roots.add(root or path)
    folders = [
        root
        for root in roots
        if not root.endswith(".py") and not root.startswith(("docs/", "examples/", "benchmarks/"))
    ]
    return tuple(sorted(folders)) or tuple(sorted(root for root in roots if root.endswith(".py")))


def _packages_in(files: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """(folder that is imported from, packages and modules below it)."""
    for root in ("src/", "lib/", ""):
        packages = {
            path[len(root) :].split("/")[0]
            for path in files
            if path.startswith(root) and path.count("/") == root.count("/") + 1 and path.endswith("/__init__.py")
        }
        packages = {name for name in packages if not _NOT_PACKAGES.fullmatch(name)}
        modules = {
            path[len(root) :]
            for path in files
            if path.startswith(root) and "/" not in path[len(root) :] and path.endswith(".py")
        }
        modules = {name for name in modules if name not in _NOT_SOURCES and not is_test_file(name)}
        if packages or modules:
            return root.rstrip("/") or ".", tuple(f"{root}{name}" for name in sorted(packages or modules))
    return ".", ()


def _version_file(tree: Path) -> str:
    """The file that the project's build writes its version to; empty where there is none, or it is named oddly."""
    tools = read_toml_gently(tree / "pyproject.toml").get("tool", {})
    scm = tools.get("setuptools_scm", {})
    hooks = (tools.get("hatch", {}).get("build", {}).get("hooks", {}), tools.get("pdm", {}))
    named = (
        hooks[0].get("vcs", {}).get("version-file"), scm.get("version_file"), scm.get("write_to"),
        hooks[1].get("version", {}).get("write_to"),
    )  # fmt: skip
    path = str(next((name for name in named if name), ""))
    is_plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*\.py", path) and ".." not in path
    return path if is_plain else ""


def _project_name(tree: Path, fallback: str) -> str:
    project = read_toml_gently(tree / "pyproject.toml").get("project", {})
    name = project.get("name") or read_cfg_gently(tree / "setup.cfg").get("metadata", {}).get("name") or fallback
    return re.sub(r"[^A-Za-z0-9._-]", "-", str(name)).strip("-._") or "project"
