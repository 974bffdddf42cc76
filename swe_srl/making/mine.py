"""Git history → tasks: commits that change tests and code together, and whose tests say so.

The task stands at the commit's parent. Its hidden tests are what the commit does to the project's tests, its gold patch the
rest, its problem statement the commit's own message. Kept is a commit whose tests fail before and pass after, twice each.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from swe_srl.benchmarks.dialects import derived_image
from swe_srl.benchmarks.runners import eval_script
from swe_srl.errors import ConfigError, UserError
from swe_srl.fanout import fan_out
from swe_srl.making.archive import open_source
from swe_srl.making.images import WORKDIR, ProjectImage, base_image
from swe_srl.making.make import Made
from swe_srl.making.recipe import Recipe
from swe_srl.making.suite import BASELINE_TIMEOUT_S, run_suite, suite_command, suite_sandbox
from swe_srl.making.write import dump_yaml, write_index
from swe_srl.runtime import open_sandbox
from swe_srl.runtime.base import Sandbox
from swe_srl.store import Run, write_text

DATASET = "swe-srl/mined"
MAX_COMMITS = 1000
MAX_LINES = 300
"""Added and removed by the gold patch; more is no issue, but a project."""
_MIN_WORDS = 3
_TRAILERS = re.compile(
    r"^(?:Signed-off-by|Co-authored-by|Change-Id|Reviewed-by|PiperOrigin-RevId): .*$", re.MULTILINE | re.IGNORECASE
)


class Change(NamedTuple):
    """A commit, taken apart."""

    sha: str
    message: str
    back: bytes
    """Patch from the project's own tree to the commit's parent."""
    gold: bytes
    tests: bytes
    test_files: tuple[str, ...]


class Mined(NamedTuple):
    """A commit that is a task."""

    change: Change
    commit: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]


def mine_tasks(
    recipe: Recipe, out: str | Path, *, num: int, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> Made:
    """Make up to `num` tasks of the newest commits that can be; what came of the others is counted.

    Raises UserError for a project without history, ConfigError where none of its commits is a task.
    """
    source = open_source(recipe.source, revision=recipe.revision or "HEAD") if recipe.source else None
    if source is None or source.repository is None:
        raise UserError(
            f"{recipe.package}: only a git repository has commits to mine: give its path or URL, or leave --mine out"
        )
    run = Run(out)
    refused: Counter[str] = Counter()
    task_ids: list[str] = []
    tried = 0
    image = ProjectImage(recipe, base_image())
    try:
        image.ensure()
        changes = _changes(source.repository, source.commit, image, refused)
        for outcome in fan_out(lambda change: _judge(change, image), changes, workers=workers):
            if outcome.failure is not None:
                raise outcome.failure
            tried += 1
            if isinstance(outcome.value, str):
                refused[outcome.value] += 1
            elif outcome.value is not None and len(task_ids) < num:
                task_ids.append(_write(outcome.value, image, run.path))
                if progress:
                    progress(len(task_ids), num)
            if len(task_ids) == num:
                break
    finally:
        image.close()
    if not task_ids:
        why = ", ".join(f"{number} {reason}" for reason, number in refused.most_common(3)) or "it has no commits"
        raise ConfigError(f"{recipe.package}: no commit became a task: {why}")
    write_index(run.path)
    return Made(recipe.package, task_ids, tried, dict(refused))


def _changes(repository: Path, revision: str, image: ProjectImage, refused: Counter[str]) -> Iterator[Change]:
    """Commits that change tests and code, the newest first."""
    from git import Repo

    repo = Repo(repository)

    def git(*arguments: str) -> bytes:
        found = repo.git.execute(["git", *arguments], stdout_as_string=False, strip_newline_in_stdout=False)
        assert isinstance(found, bytes)
        return found

    def diff(before: str, after: str, *paths: str) -> bytes:
        options = ("--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv")
        return git("diff", *options, before, after, "--", *paths)

    for commit in repo.iter_commits(revision, first_parent=True, max_count=MAX_COMMITS):
        if len(commit.parents) != 1:
            refused["merges, or without a parent"] += 1
            continue
        before, after = commit.parents[0].hexsha, commit.hexsha
        paths = (
            git("diff", "--name-only", "--no-renames", "-z", before, after)
            .decode(errors="surrogateescape")
            .split("\0")[:-1]
        )
        tests = [path for path in paths if image.project.is_test(path)]
        code = [path for path in paths if path not in tests]
        test_files = tuple(path for path in tests if re.search(r"(?:^|/)(?:test_[^/]*|[^/]*_test)\.py$", path))
        if not test_files or not any(path.endswith(".py") for path in code):
            refused["do not change tests and code"] += 1
            continue
        gold = diff(before, after, *code)
        if sum(line[:1] in (b"+", b"-") for line in gold.split(b"\n")) > MAX_LINES or b"GIT binary patch" in gold:
            refused["change too much, or binary files"] += 1
            continue
        message = _TRAILERS.sub("", str(commit.message)).strip()
        if len(message.split()) < _MIN_WORDS:
            refused["say too little in their message"] += 1
            continue
        yield Change(after, message, diff(revision, before), gold, diff(before, after, *tests), test_files)


def _judge(change: Change, image: ProjectImage) -> Mined | str:
    """The task in a commit, or why there is none."""
    planted = image.project.planted(change.back)
    if planted is None:
        return "cannot be reached from the project's tree"
    recipe = image.recipe
    with open_sandbox(suite_sandbox(), image.tag, name=f"mine-{change.sha[:8]}") as box:
        if not _apply(change.back, box):
            return "cannot be reached from the project's tree"
        if not _apply(change.tests, box):
            return "have tests that do not apply"
        files = [
            path for path in change.test_files if box.run(f"test -f {shlex.quote(path)}", timeout_s=60).exit_code == 0
        ]
        if not files:
            return "only remove tests"
        before = [run_suite(recipe, box, timeout_s=BASELINE_TIMEOUT_S, tests=files) for _ in range(2)]
        if not _apply(change.gold, box):
            return "have code that does not apply"
        after = [run_suite(recipe, box, timeout_s=BASELINE_TIMEOUT_S, tests=files) for _ in range(2)]
    if any(run.timed_out for run in (*before, *after)):
        return "have tests that do not end"
    passing = after[0].passed & after[1].passed
    wobbling = (before[0].passed ^ before[1].passed) | (after[0].passed ^ after[1].passed)
    fail_to_pass = passing - before[0].passed - wobbling
    if not fail_to_pass:
        return "have tests that pass before, or fail after"
    pass_to_pass = (passing & before[0].passed) - wobbling
    change = change._replace(test_files=tuple(files))
    return Mined(change, planted, tuple(sorted(fail_to_pass)), tuple(sorted(pass_to_pass)))


def _apply(patch: bytes, box: Sandbox) -> bool:
    if not patch.strip():
        return True
    box.write_file("/tmp/change.patch", patch)  # noqa: S108  a path inside the box
    return box.run("git apply --whitespace=nowarn /tmp/change.patch", timeout_s=60).exit_code == 0


def _write(mined: Mined, image: ProjectImage, out: Path) -> str:
    change, recipe = mined.change, image.recipe
    task_id = f"{recipe.package}__{recipe.package}.{change.sha[:8]}.commit"
    folder = out / "tasks" / task_id
    command = f"PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 {suite_command(recipe, change.test_files)}"
    test_patch = change.tests.decode("utf-8", "surrogateescape")
    tests = {"FAIL_TO_PASS": list(mined.fail_to_pass), "PASS_TO_PASS": list(mined.pass_to_pass)}
    meta: dict[str, Any] = {
        "instance_id": task_id,
        "repo": f"{recipe.package}/{recipe.package}",
        "version": recipe.version,
        "base_commit": mined.commit,
        "split": recipe.split,
        "datasets": [DATASET],
        "image": derived_image(task_id),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "mined_commit": change.sha,
        "licence": recipe.licence,
    }
    files = {
        "problem_statement.md": change.message + "\n",
        "tests.json": json.dumps(tests, indent=2, ensure_ascii=False) + "\n",
        "gold.patch": change.gold.decode("utf-8", "surrogateescape"),
        "test.patch": test_patch,
        "bug.patch": change.back.decode("utf-8", "surrogateescape"),
        "eval.sh": eval_script(command, [], base=mined.commit, test_patch=test_patch, workdir=WORKDIR),
        "Dockerfile": image.task_dockerfile(mined.commit),
        ".dockerignore": "*\n!bug.patch\n",
        "task.yaml": dump_yaml(meta),
    }
    for name, text in files.items():
        write_text(folder / name, text)
    return task_id
