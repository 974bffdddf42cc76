"""A recipe → the same validated tasks, in Docker, end to end on a project of forty lines."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swe_srl.benchmarks.load import load_tasks
from swe_srl.errors import ApparatusError, UserError
from swe_srl.making.check import check_tasks
from swe_srl.making.download import fetch_wheel
from swe_srl.making.make import make_tasks
from swe_srl.making.recipe import Recipe, load_recipe

pytestmark = pytest.mark.docker

# Stands in the repository, so that every run has commits and images of its own: one that runs beside it must not remove them.
RUN = uuid.uuid4().hex
MODULE = """\
def clamp(value, low, high):
    if value < low:
        return low
    if value > high:
        return high
    return value


def wrap(text, left="<", right=None):
    if right is None and left == "<":
        right = ">"
    return left + text + (right or left)


def evens(numbers):
    return [number for number in numbers if not number % 2]
"""
TESTS = """\
import time

from tiny import clamp, evens, wrap


def test_clamp():
    assert clamp(5, 1, 3) == 3
    assert clamp(0, 1, 3) == 1
    assert clamp(2, 1, 3) == 2


def test_wrap():
    assert wrap("a") == "<a>"
    assert wrap("a", "*") == "*a*"


def test_evens():
    assert evens([1, 2, 3, 4]) == [2, 4]


def test_nothing_of_ours():
    assert True
"""


def put_sdist(cache: Path) -> str:
    """Put a source distribution where a download would have put it; its digest."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in {"tiny.py": MODULE, "tests/test_tiny.py": TESTS, "run": RUN}.items():
            member = tarfile.TarInfo(f"tiny-1.0/{name}")
            member.size, member.mtime = len(text), 1_700_000_000
            archive.addfile(member, io.BytesIO(text.encode()))
    digest = hashlib.sha256(data.getvalue()).hexdigest()
    folder = cache / "sdists" / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny-1.0.tar").write_bytes(data.getvalue())
    return digest


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def recipe(cache: Path, base_image: str, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    del base_image
    wheels = load_recipe("toolz").wheels
    try:
        found = [fetch_wheel(wheel) for wheel in wheels]
    except ApparatusError as error:
        pytest.skip(f"the package index is not reachable: {error}")
    for path, wheel in zip(found, wheels, strict=True):
        folder = cache / "wheels" / wheel.sha256[:16]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("SWE_SRL_CACHE", str(cache))
    return Recipe(
        package="tiny", version="1.0", sha256=put_sdist(cache), licence="MIT", split="train", num_tasks=4, include=("*",),
        sources=("tiny.py",), tests=("tests",), wheels=wheels,
    )  # fmt: skip


@pytest.fixture(scope="module")
def no_images_left(cache: Path) -> Iterator[list[str]]:
    """Images that a test names here are removed after it."""
    from swe_srl.runtime.docker.client import client

    images: list[str] = []
    yield images
    for image in images:
        client().images.remove(image, force=True)


def test_the_same_recipe_gives_the_same_validated_tasks(
    recipe: Recipe, cache: Path, tmp_path: Path, no_images_left: list[str]
) -> None:
    from swebench.task.checks import check_task_repo

    from swe_srl.runtime import SandboxConfig, open_sandbox

    one, other = tmp_path / "one", tmp_path / "other"
    (made,) = make_tasks([recipe], one, workers=1)
    assert len(made.task_ids) == 4
    for journal in (cache / "planting").iterdir():
        journal.unlink()
    make_tasks([recipe], other, workers=3)
    assert files_of(one) == files_of(other)
    assert [str(problem) for problem in check_task_repo(one)] == []

    tasks = load_tasks(one)
    no_images_left += [task.image for task in tasks]
    dockerfile = (one / "tasks" / tasks[0].task_id / "Dockerfile").read_text()
    no_images_left.append(dockerfile.split()[1])
    checked = check_tasks(one, repeats=2, workers=2)
    assert checked.good == [task.task_id for task in tasks]
    assert not checked.flaky

    with open_sandbox(SandboxConfig(), tasks[0].image) as box:
        assert box.run("git rev-parse HEAD", timeout_s=30).output.strip() == tasks[0].base_commit
        assert box.run("git status --porcelain", timeout_s=30).output == ""
        assert box.run("git rev-list --all --count; git reflog | wc -l", timeout_s=30).output.split() == ["1", "0"]
        every_object = box.run(
            "git cat-file --batch-all-objects --batch-check --unordered | grep -c commit", timeout_s=30
        )
        assert every_object.output.strip() == "1", "the commit without the bug is not in the box"
        blobs = box.run("git cat-file --batch-all-objects --batch", timeout_s=30).output
        assert MODULE not in blobs, "the file without the bug is not in the box"


def test_a_task_whose_gold_patch_does_not_resolve_is_listed_as_flaky_and_loaded_by_nobody(
    recipe: Recipe, tmp_path: Path, no_images_left: list[str]
) -> None:
    make_tasks([recipe], tmp_path, num=2)
    broken, sound = load_tasks(tmp_path)
    no_images_left += [image for image in (broken.image, sound.image) if image not in no_images_left]
    tests_file = tmp_path / "tasks" / broken.task_id / "tests.json"
    tests: dict[str, Any] = json.loads(tests_file.read_text())
    tests_file.write_text(json.dumps(tests | {"FAIL_TO_PASS": ["tests/test_tiny.py::test_absent"]}))
    checked = check_tasks(tmp_path, repeats=1)
    assert (checked.flaky, checked.good) == ([broken.task_id], [sound.task_id])
    assert [task.task_id for task in load_tasks(tmp_path)] == [sound.task_id]
    assert check_tasks(tmp_path, repeats=1) == checked, "a second call repeats nothing and says the same"


def test_a_repo_with_tasks_of_another_recipe_is_not_mixed(recipe: Recipe, tmp_path: Path) -> None:
    make_tasks([recipe], tmp_path, num=3)
    with pytest.raises(UserError, match="choose another --out"):
        make_tasks([recipe], tmp_path, num=1)


def test_a_suite_that_fails_without_a_bug_is_a_mistake_of_the_recipe(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not pass without a bug"):
        make_tasks([recipe.model_copy(update={"tests": ("no_such_folder",)})], tmp_path)
