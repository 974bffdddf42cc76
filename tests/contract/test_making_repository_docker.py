"""Tasks made of a project that nobody wrote a recipe for: a git repository, its bugs planted and its commits mined."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from swe_srl.benchmarks.grading_spec import load_specs
from swe_srl.benchmarks.load import excluded, load_tasks
from swe_srl.errors import ConfigError, UserError
from swe_srl.making.archive import is_source, open_source
from swe_srl.making.auto import recipe_for
from swe_srl.making.check import check_tasks
from swe_srl.making.decontaminate import decontaminate, repository_name
from swe_srl.making.environment import dockerfile_of
from swe_srl.making.exchange import import_rows
from swe_srl.making.images import base_image
from swe_srl.making.make import make_tasks
from swe_srl.making.mine import mine_tasks
from swe_srl.making.recipe import load_recipe

pytestmark = pytest.mark.docker

NAME = f"ledger{uuid.uuid4().hex[:8]}"
"""Images are named for their project: a run beside this one must not share them."""
CODE = '''\
"""A ledger."""

from ._version import __version__ as __version__


def total(entries):
    """Sum of the amounts."""
    result = 0
    for entry in entries:
        result += entry["amount"]
    return result


def largest(entries):
    """The entry with the largest amount; None without entries."""
    if not entries:
        return None
    return max(entries, key=lambda entry: entry["amount"])
'''
TESTS = f"""\
import random

import pytest

from {NAME} import largest, total

ENTRIES = [{{"amount": 3}}, {{"amount": 9}}, {{"amount": -2}}]


def test_total():
    assert total(ENTRIES) == 10


def test_total_of_nothing():
    assert total([]) == 0


def test_largest():
    assert largest(ENTRIES) == {{"amount": 9}}
    assert largest([]) is None


def test_needs_a_network():
    import socket

    socket.create_connection(("192.0.2.1", 80), timeout=1)
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three commits: the start, one that only says a word, and a mended sign with its test."""
    folder = tmp_path_factory.mktemp("projects") / NAME
    (folder / "src" / NAME).mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "src" / NAME / "__init__.py").write_text(CODE.replace('+= entry["amount"]', '+= abs(entry["amount"])'))
    (folder / "tests" / "test_ledger.py").write_text(TESTS.replace(', {"amount": -2}', "").replace("== 10", "== 12"))
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{NAME}"\ndynamic = ["version"]\n[tool.setuptools_scm]\nversion_file = "src/{NAME}/_version.py"\n'
    )
    (folder / ".gitignore").write_text("_version.py\n")
    (folder / ".gitattributes").write_text("tests export-ignore\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "A ledger of amounts")
    (folder / "README.md").write_text("A ledger.\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Say what it is")
    (folder / "src" / NAME / "__init__.py").write_text(CODE)
    (folder / "tests" / "test_ledger.py").write_text(TESTS)
    git(
        folder,
        "commit",
        "-qam",
        "Count what was paid out\n\nAmounts below zero were added.\n\nSigned-off-by: x <x@example.org>",
    )
    yield folder
    import docker

    client = docker.from_env()
    for image in client.images.list(filters={"reference": "swebench/*"}) + client.images.list(f"swe-srl/{NAME}"):
        if any(NAME in tag for tag in image.tags):
            client.images.remove(image.tags[0], force=True)
    client.close()


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted")
    make_tasks([recipe_for(str(repository), out, num_tasks=2)], out, num=2)
    return out


def test_what_does_not_pass_is_left_out_and_the_recipe_is_kept(repository: Path, made: Path) -> None:
    path = made / "recipes" / f"{NAME}.toml"
    recipe = load_recipe(str(path))
    assert recipe.deselect == ("tests/test_ledger.py::test_needs_a_network",)
    assert (recipe.sources, recipe.tests, recipe.import_root) == ((f"src/{NAME}/*.py",), ("tests",), "src")
    assert recipe.revision == git(repository, "rev-parse", "HEAD")
    assert recipe_for(str(repository), made, num_tasks=2).deselect == recipe.deselect


def test_planted_tasks_of_any_repository_are_valid(made: Path) -> None:
    checked = check_tasks(made, repeats=1)
    assert (len(checked.good), checked.flaky, checked.failures) == (2, [], [])


def test_a_commit_that_mends_code_and_tests_becomes_a_task(repository: Path, made: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(made / "recipes" / f"{NAME}.toml"))
    found = mine_tasks(recipe, tmp_path, num=5)
    assert found.refused == {"do not change tests and code": 1, "merges, or without a parent": 1}
    (task,) = load_tasks(tmp_path)
    assert task.problem_statement == "Count what was paid out\n\nAmounts below zero were added.\n"
    spec = load_specs(tmp_path)[task.task_id]
    assert spec.fail_to_pass == ("tests/test_ledger.py::test_total",)
    assert set(spec.pass_to_pass) == {
        "tests/test_ledger.py::test_total_of_nothing",
        "tests/test_ledger.py::test_largest",
    }
    assert "abs" in spec.gold_patch
    assert "test_ledger" not in spec.gold_patch
    checked = check_tasks(tmp_path, repeats=1)
    assert (checked.good, checked.flaky, checked.failures) == ([task.task_id], [], [])


def test_what_was_found_out_about_a_commit_is_not_found_out_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(made / "recipes" / f"{NAME}.toml"))
    first = mine_tasks(recipe, tmp_path / "first", num=5)
    monkeypatch.setattr("swe_srl.making.mine.open_sandbox", lambda *_, **__: pytest.fail("a box was opened"))
    assert mine_tasks(recipe, tmp_path / "again", num=5) == first
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "first", tmp_path / "again")
    ]
    assert files[0] == files[1]


def test_what_is_like_an_evaluation_set_is_used_by_nobody(made: Path, tmp_path: Path) -> None:
    ids = [task.task_id for task in load_tasks(made)]
    found = decontaminate(made, [made])
    assert found == dict.fromkeys(ids, "the same instance is evaluated on")
    assert load_tasks(made) == []
    assert excluded(made) == found
    (tmp_path / "rows.jsonl").write_text(
        f'{{"instance_id": "x__{NAME}-1", "repo": "x/{NAME.upper()}", "base_commit": "c", "problem_statement": "", "patch": "", "eval_script": "e", '
        '"log_parser": "parse_log_pytest", "FAIL_TO_PASS": [], "PASS_TO_PASS": []}\n'
    )
    assert set(decontaminate(made, [tmp_path / "rows.jsonl"]).values()) == {
        f"its repository is that of x/{NAME.upper()}"
    }
    assert decontaminate(made, [tmp_path / "rows.jsonl"], by_repository=False) == {}
    assert [task.task_id for task in load_tasks(made)] == ids


def test_mirrors_of_a_repository_have_its_name() -> None:
    names = ("pandas-dev/pandas", "swesmith/pandas-dev__pandas.95280573", "PANDAS", "https://example.org/x/pandas.git")
    assert {repository_name(name) for name in names} == {"pandas"}


@pytest.mark.parametrize(
    ("target", "words"),
    [("/nowhere/at/all.git", "cannot be read as a git repository"), ("/nowhere/x-1.0.tar.gz", "no file")],
)
def test_a_project_that_is_not_there_is_a_sentence(target: str, words: str) -> None:
    assert is_source(target)
    with pytest.raises(UserError, match=words):
        open_source(target)


def test_a_project_without_tests_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    with pytest.raises(ConfigError, match="--tests"):
        recipe_for(str(tmp_path), tmp_path / "out", num_tasks=1)
    with pytest.raises(UserError, match="git repository"):
        mine_tasks(load_recipe("toolz"), tmp_path / "out", num=1)


@pytest.fixture
def clone_from(repository: Path) -> Iterator[str]:
    """A real git server with the repository, as `x/<name>`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    served = repository.parent / "x"
    if not served.exists():
        served.symlink_to(repository.parent, target_is_directory=True)
    command = [
        "git",
        "daemon",
        f"--base-path={repository.parent}",
        "--export-all",
        f"--port={port}",
        "--listen=127.0.0.1",
        "--reuseaddr",
    ]
    server = subprocess.Popen(command, start_new_session=True)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"git://127.0.0.1:{port}/{{repo}}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def test_a_row_without_an_image_gets_one_built_of_its_repository(
    repository: Path, clone_from: str, tmp_path: Path
) -> None:
    parent = git(repository, "rev-parse", "HEAD~1")
    row = {
        "instance_id": f"x__{NAME}-1", "repo": f"x/{NAME}", "base_commit": parent, "problem_statement": "It counts wrong.", "created_at": "2024-05-01T00:00:00Z",
        "patch": git(repository, "diff", "HEAD~1", "HEAD", "--", "src") + "\n", "test_patch": "", "FAIL_TO_PASS": ["total"], "PASS_TO_PASS": ["empty"],
        "install_config": {"python": "3.11", "pre_install": ["test -d tests"], "install": [
            f"echo '__version__ = 0' > src/{NAME}/_version.py",
            "echo $PWD/src > $(python3 -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')/x.pth",
        ]},
        "log_parser": "parse_log_pytest",
        "eval_script": f"cd /testbed\necho '>>>>> Start Test Output'\npython3 -c \"from {NAME} import total; print(['FAILED','PASSED'][total([dict(amount=-2)]) == -2], 'total'); print('PASSED empty')\"\necho '>>>>> End Test Output'\n",
    }  # fmt: skip
    (tmp_path / "rows.json").write_text(
        json.dumps([row, {**row, "instance_id": "x__y-2", "install_config": None, "created_at": ""}])
    )
    imported = import_rows(
        tmp_path / "rows.json",
        tmp_path / "repo",
        build=lambda row: dockerfile_of(row, base=base_image(), clone_from=clone_from),
    )
    assert imported.skipped == {
        "x__y-2": "no created_at, and no install_config with python and install: nothing pins its environment"
    }
    checked = check_tasks(tmp_path / "repo", repeats=1)
    assert (checked.good, checked.flaky, checked.failures) == ([row["instance_id"]], [], [])


def test_without_a_specification_the_day_of_the_issue_pins_the_packages() -> None:
    row = {
        "instance_id": "a__b-1",
        "repo": "a/b",
        "base_commit": "c1",
        "created_at": "2020-03-04T05:06:07Z",
        "environment_setup_commit": "c0",
    }
    text = dockerfile_of(row)
    assert text.startswith("FROM python:3.7\nRUN git clone --quiet https://github.com/a/b.git /testbed")
    assert "git checkout --quiet c0" in text
    assert "--exclude-newer 2020-03-04 pytest -e ." in text
    assert "git checkout --quiet c1 && git remote remove origin\nWORKDIR /testbed\n" in text
