"""Any project → where its sources and tests are, and what they need."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from git import Repo

from swe_srl.errors import ConfigError, UserError
from swe_srl.making.archive import is_source, open_source
from swe_srl.making.auto import recipe_toml
from swe_srl.making.needs import normal_name, requirements_of
from swe_srl.making.recipe import Recipe, load_recipe
from swe_srl.making.source import _packages_in, _tests_in, _version_file, recipe_of


@pytest.mark.parametrize(
    ("files", "root", "packages", "tests"),
    [
        (["pkg/__init__.py", "pkg/a.py", "tests/test_a.py", "docs/conf.py", "setup.py"], ".", ("pkg",), ("tests",)),
        (["src/pkg/__init__.py", "tests/unit/test_a.py", "tests/x_test.py"], "src", ("src/pkg",), ("tests",)),
        (["pkg/__init__.py", "pkg/tests/__init__.py", "pkg/tests/test_a.py", "tests/__init__.py"], ".", ("pkg",), ("pkg/tests",)),
        (["one.py", "test_one.py", "setup.py"], ".", ("one.py",), ("test_one.py",)),
        (["src/one.py", "test/test_one.py", "conftest.py"], "src", ("src/one.py",), ("test",)),
        (["README", "data/x.json"], ".", (), ()),
    ],
)  # fmt: skip
def test_sources_and_tests_are_found_by_their_places(
    files: list[str], root: str, packages: tuple[str, ...], tests: tuple[str, ...]
) -> None:
    assert _packages_in(files) == (root, packages)
    assert _tests_in(files) == tests


def test_requirements_are_read_from_whichever_file_states_them(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": '[project]\ndependencies = ["a>=1"]\n[project.optional-dependencies]\ntest = ["b"]\ndocs = ["never"]\n[dependency-groups]\ndev = ["c", {include-group = "x"}]\n'
        '[tool.poetry.dependencies]\npython = "^3"\nd = "1"\n',
        "setup.cfg": "[options]\ninstall_requires =\n    e\n    f; python_version < '3'\n[options.extras_require]\ntests =\n    g\n",
        "PKG-INFO": "Metadata-Version: 2.1\nRequires-Dist: h>=2\nRequires-Dist: i; extra == 'test'\nRequires-Dist: j; python_version < '4' and extra == 'test'\nRequires-Dist: never; extra == 'docs'\n",
        "requirements-test.txt": "# comment\nk  # why\n-r other.txt\n",
        "requirements/docs.txt": "never\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = requirements_of(tmp_path, sorted(files))
    assert found == [
        "a>=1",
        "b",
        "c",
        "d",
        "e",
        "f; python_version < '3'",
        "g",
        "h>=2",
        "i",
        "j; python_version < '4'",
        "k",
    ]


def test_a_recipe_that_was_found_out_is_read_again_as_it_was(tmp_path: Path) -> None:
    recipe = load_recipe("toolz").model_copy(
        update={"deselect": ('tests/a.py::test_x["quoted" \\ ü]',), "source": "/some/where"}
    )
    (tmp_path / "recipe.toml").write_text(recipe_toml(recipe))
    assert load_recipe(str(tmp_path / "recipe.toml")) == recipe
    assert isinstance(recipe, Recipe)


def test_a_folder_becomes_the_same_archive_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "__init__.py").write_text("x = 1\n")
    (folder / "link").symlink_to("/etc/passwd")
    first = open_source(str(folder))
    (folder / "pkg" / "__init__.py").touch()
    assert open_source(str(folder)).archive == first.archive
    with tarfile.open(first.archive) as held:
        assert held.getnames() == ["project-0/pkg/__init__.py"]
    with pytest.raises(ConfigError, match="tests"):
        recipe_of(first, num_tasks=1)


@pytest.mark.parametrize("revision", ["HEAD", "no-such-branch", "0" * 40])
def test_a_repository_without_that_commit_is_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    """A first `tasks make` on a folder of `git init` in which nothing was committed yet ended in a traceback."""
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path / "cache"))
    Repo.init(tmp_path / "project")
    with pytest.raises(UserError, match="check its address and the revision"):
        open_source(str(tmp_path / "project"), revision=revision)


def test_what_is_a_project_and_what_a_recipe(tmp_path: Path) -> None:
    for target in ("https://example.org/a/b", "git@example.org:a/b.git", "../x.git", "pkg-1.0.tar.gz", str(tmp_path)):
        assert is_source(target)
    for target in ("toolz", "recipes/toolz.toml"):
        assert not is_source(target)
    assert normal_name("More_Itertools.x") == "more-itertools-x"


@pytest.mark.parametrize(
    ("name", "text", "plugins"),
    [
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = "--cov=parse --cov-report=term -n4 -noise"\n', {"pytest-cov", "pytest-xdist"}),
        ("pyproject.toml", '[tool.pytest]\naddopts = ["--timeout", "3"]\n', {"pytest-timeout"}),
        ("setup.cfg", "[tool:pytest]\nasyncio_mode = auto\naddopts = --covers\n", {"pytest-asyncio"}),
        ("pytest.ini", "[pytest]\nDJANGO_SETTINGS_MODULE = x.settings\n", {"pytest-django"}),
        ("tox.ini", "[pytest]\naddopts = -q --doctest-modules\n[testenv]\naddopts = --cov\n", set()),
    ],
)  # fmt: skip
def test_plugins_that_the_runners_settings_ask_for_are_requirements(
    tmp_path: Path, name: str, text: str, plugins: set[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert set(requirements_of(tmp_path, [name])) == plugins


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ('[tool.hatch.build.hooks.vcs]\nversion-file = "src/pkg/_version.py"\n', "src/pkg/_version.py"),
        ('[tool.setuptools_scm]\nversion_file = "src/pkg/_version.py"\n', "src/pkg/_version.py"),
        ('[tool.setuptools_scm]\nwrite_to = "pkg/version.py"\n', "pkg/version.py"),
        ('[tool.pdm.version]\nsource = "scm"\nwrite_to = "pkg/_version.py"\n', "pkg/_version.py"),
        ('[tool.setuptools_scm]\nversion_file = "../$(x).py"\n', ""),
        ('[tool.setuptools_scm]\nversion_file = "pkg/VERSION"\n', ""),
        ("[tool.setuptools_scm]\n", ""),
        ("", ""),
    ],
)
def test_the_file_that_a_build_writes_its_version_to_is_found(tmp_path: Path, settings: str, found: str) -> None:
    (tmp_path / "pyproject.toml").write_text(settings)
    assert _version_file(tmp_path) == found
