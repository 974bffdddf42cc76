"""Name or TOML file → Recipe: which project, which version of it, and how bugs are planted in it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field

from swe_srl.assets import material
from swe_srl.errors import ConfigError
from swe_srl.making.mutate import KINDS
from swe_srl.settings import Config, build, read_toml

HEX64 = r"^[0-9a-f]{64}$"


class Wheel(Config):
    """A package that the project's tests need, pinned."""

    package: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    version: str
    sha256: str = Field(pattern=HEX64)


class Recipe(Config):
    """One real project at one version, and how tasks are made from it. Same recipe, same tasks, byte for byte."""

    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the package index."""
    version: str
    sha256: str = Field(pattern=HEX64)
    """Of the source distribution."""
    source: str = ""
    """Where the archive comes from, if not from the package index: a git repository, a folder, a file."""
    revision: str = ""
    """Of a git repository: the commit."""
    licence: str
    """SPDX name of the project's licence, for whoever publishes what is made of it."""
    split: Literal["train", "test"]
    """Training and evaluation tasks come from different projects."""
    seed: int = 0
    num_tasks: int = Field(ge=1)
    include: tuple[str, ...]
    """Which files of the source distribution form the repository (globs; `*` crosses slashes)."""
    exclude: tuple[str, ...] = ()
    """Which of those do not."""
    sources: tuple[str, ...]
    """Files that bugs are planted in (globs)."""
    tests: tuple[str, ...]
    """What the test command is given, and what grading restores before it runs: files or folders."""
    deselect: tuple[str, ...] = ()
    """Test ids (or their beginnings) that are not run: flaky, slow, or in need of a network. A file (`….py`) is not even looked into."""
    import_root: str = "."
    """Folder that Python imports the package from."""
    version_file: str = Field("", pattern=r"^[A-Za-z0-9_./-]*$")
    """File that the project's build writes its version to and git does not hold, as hatch-vcs and setuptools-scm do; it is written in the image."""
    wheels: tuple[Wheel, ...]
    """Installed in the box without a network."""
    max_function_lines: int = Field(25, ge=1)
    """Of code, docstring not counted; bugs are planted in short functions."""
    max_per_function: int = Field(2, ge=1)
    max_failing: int = Field(8, ge=1)
    """A bug that breaks more tests than this says little about itself."""
    loose: bool = False
    """Whether a statement may show a failure that does not name the function with the bug, as in tests of methods."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of bugs, in turn."""

    @property
    def digest(self) -> str:
        """12 hex digits of everything above."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def load_recipe(name: str) -> Recipe:
    """The recipe in a TOML file, or the bundled one of that name. Raises ConfigError."""
    path = Path(name)
    if not path.is_file():
        path = material("sandboxes", "recipes") / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"no recipe {name!r}: give a TOML file or one of {', '.join(bundled())}")
    recipe = build(Recipe, read_toml(path), origin=str(path))
    unknown = sorted(set(recipe.kinds) - set(KINDS))
    if unknown:
        raise ConfigError(f"{path}: kinds: no such kind of bug {', '.join(unknown)}: known are {', '.join(KINDS)}")
    return recipe


def bundled() -> list[str]:
    """Names of the recipes that come with swe-srl."""
    return sorted(path.stem for path in material("sandboxes", "recipes").glob("*.toml"))
