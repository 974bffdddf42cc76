"""A real project → tasks: edits, commits, statements, recipes. Without Docker."""

import ast
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.errors import ConfigError
from swe_srl.making.mutate import KINDS, Edit, Mutation, apply, mutations
from swe_srl.making.plant import RUNS_DISAGREE, _Baseline, _Planter, candidates
from swe_srl.making.project import Project
from swe_srl.making.recipe import Recipe, bundled, load_recipe
from swe_srl.making.statement import MAX_LENGTH, Failure, called_functions, read_failure, statement
from swe_srl.making.suite import failure_block, read_statuses, suite_command
from swe_srl.runtime.base import CommandResult

MODULE = '''\
def pick(items, key=None, n=1):
    """Pick items: 0 or more."""
    # é: offsets are bytes, not characters
    if key and not callable(key):
        items = sorted(items)
        items.append(min(items, n))
    if n < 0 or len(items) == 0:
        return items[0]
    else:
        return items[-1]


def more(left, right):
    total = left * 2 + right if left else right
    total += 1
    return swap(total, right)


def first(seq):
    return (seq[1:], seq)
'''


def every_mutation(source: str = MODULE) -> list[Mutation]:
    return list(mutations("m.py", source.encode(), max_function_lines=25))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_bug_is_found_where_there_is_room_for_it(kind):
    assert [m for m in every_mutation() if m.kind == kind]


def test_a_mutation_parses_means_something_else_and_leaves_all_other_bytes():
    for mutation in every_mutation():
        after = apply(MODULE.encode(), mutation.edit)
        assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(MODULE))
        start, end, text = mutation.edit
        assert after[:start] == MODULE.encode()[:start]
        assert after[start + len(text.encode()) :] == MODULE.encode()[end:]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("compare", "n < 0", "n <= 0"),
        ("compare", "len(items) == 0", "len(items) != 0"),
        ("boolean", "n < 0 or len", "n < 0 and len"),
        ("constant", "left * 2", "left * 3"),
        ("condition", "if key and not callable(key):", "if not (key and not callable(key)):"),
        ("negation", "and not callable(key)", "and callable(key)"),
        ("arguments", "swap(total, right)", "swap(right, total)"),
        ("statement", "    total += 1\n", ""),
        ("return", "(seq[1:], seq)", "(seq, seq[1:])"),
        ("arithmetic", "2 + right", "2 - right"),
        ("arithmetic", "total += 1", "total -= 1"),
        ("index", "items[-1]", "items[0]"),
        ("index", "seq[1:]", "seq[:1]"),
        ("branches", "left * 2 + right if left else right", "right if left else left * 2 + right"),
        ("twin", "min(items", "max(items"),
    ],
)
def test_a_bug_is_the_small_edit_that_its_kind_promises(kind, before, after):
    wanted = MODULE.replace(before, after)
    assert wanted != MODULE
    assert wanted.encode() in [apply(MODULE.encode(), m.edit) for m in every_mutation() if m.kind == kind]


def test_docstrings_decorators_and_long_functions_are_left_alone():
    source = (
        "@cache(1)\ndef f(x):\n    '''0 == 0'''\n    return x\n\n\ndef g(x):\n" + "    x += 1\n" * 30 + "    return x\n"
    )
    found = every_mutation(source)
    assert {m.function for m in found} == {"f"}
    assert {m.line for m in found} == {4}


def test_a_mutation_says_the_line_it_is_on():
    for mutation in every_mutation():
        assert MODULE.encode()[: mutation.edit.start].count(b"\n") + 1 == mutation.line


@given(st.binary(max_size=60), st.data())
def test_an_edit_replaces_its_bytes_and_no_others(data, draw):
    start = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(start, len(data)))
    assert (
        apply(data, Edit(start, end, data[start:end].decode("latin1")))
        == data[:start] + data[start:end].decode("latin1").encode() + data[end:]
    )


# projects

RECIPE = Recipe(
    package="tiny", version="1.0", sha256="0" * 64, licence="MIT", split="train", num_tasks=2,
    include=("tiny.py", "tests/*"), sources=("*.py",), tests=("tests",), wheels=(),
)  # fmt: skip
TESTS = "from tiny import first, more, pick\n\n\ndef test_first():\n    assert first([1, 2]) == ([2], [1, 2])\n\n\ndef test_pick():\n    assert pick([3]) == 3\n"


def sdist(folder: Path, *, mode: int = 0o644) -> Path:
    path = folder / "tiny-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in {"tiny.py": MODULE, "tests/test_tiny.py": TESTS, "setup.py": "raise SystemExit\n"}.items():
            member = tarfile.TarInfo(f"tiny-1.0/{name}")
            member.size, member.mtime, member.mode = len(text.encode()), 1_700_000_000, mode
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), "-c", "safe.directory=*", *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_the_commit_depends_on_the_sources_alone(tmp_path, monkeypatch):
    one = Project(RECIPE, sdist(tmp_path), tmp_path / "one")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2001-01-01T00:00:00")
    other = Project(RECIPE, sdist(tmp_path, mode=0o600), tmp_path / "other")
    assert one.commit == other.commit
    assert one.files == [".gitignore", "tests/test_tiny.py", "tiny.py"]
    assert git(tmp_path / "one", "log", "--format=%an %ct %s").strip() == "swe-srl 1700000000 tiny 1.0"


def test_a_planted_bug_is_a_commit_without_parents_and_its_patches_lead_there_and_back(tmp_path):
    project = Project(RECIPE, sdist(tmp_path), tmp_path / "repo")
    mutation = every_mutation()[0]
    tree = project.plant("tiny.py", mutation.edit)
    assert git(project.folder, "rev-list", "--parents", tree.commit).split() == [tree.commit]
    assert git(project.folder, "show", f"{tree.commit}:tiny.py").encode() == apply(MODULE.encode(), mutation.edit)
    assert (project.folder / "tiny.py").read_text() == MODULE
    git(project.folder, "checkout", "--quiet", tree.commit)
    (tmp_path / "gold.patch").write_text(tree.gold_patch)
    git(project.folder, "apply", str(tmp_path / "gold.patch"))
    assert (project.folder / "tiny.py").read_text() == MODULE
    (tmp_path / "bug.patch").write_text(tree.bug_patch)
    git(project.folder, "apply", str(tmp_path / "bug.patch"))
    assert (project.folder / "tiny.py").read_bytes() == apply(MODULE.encode(), mutation.edit)


def test_candidates_are_functions_that_a_test_names_in_an_order_that_the_seed_gives(tmp_path):
    project = Project(RECIPE, sdist(tmp_path), tmp_path / "repo")
    found = candidates(project)
    assert {mutation.function for mutation in found} == {"first", "pick"}
    assert found == candidates(project)
    kinds = [mutation.kind for mutation in found]
    assert len(set(kinds[: len(set(kinds))])) == len(set(kinds)), "kinds come in turn"
    other = Project(RECIPE.model_copy(update={"seed": 5}), sdist(tmp_path), tmp_path / "other")
    assert candidates(other) != found
    assert sorted(candidates(other)) == sorted(found)


def test_globs_that_match_nothing_are_a_mistake_of_the_recipe(tmp_path):
    with pytest.raises(ConfigError, match="include"):
        Project(RECIPE.model_copy(update={"include": ("nothing",)}), sdist(tmp_path), tmp_path / "one")
    with pytest.raises(ConfigError, match="sources"):
        _ = Project(RECIPE.model_copy(update={"sources": ("tests/*",)}), sdist(tmp_path), tmp_path / "two").source_files


def test_a_member_that_climbs_out_of_the_archive_is_not_written(tmp_path):
    path = sdist(tmp_path)
    with tarfile.open(path, "w:gz") as archive:
        for name in ("tiny-1.0/tiny.py", "tiny-1.0/../../tests/evil.py"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ConfigError):  # a time of 0 is no time of a file: nothing was taken
        Project(RECIPE, path, tmp_path / "a" / "repo")
    assert not list(tmp_path.rglob("evil.py"))


class Suite:
    """A box whose test command says, run by run, which tests fail."""

    def __init__(self, *runs: dict[str, str]) -> None:
        self.runs = list(runs)

    def run(self, command: str, *, timeout_s: float) -> CommandResult:
        statuses = self.runs.pop(0)
        block = "____ test_first ____\ntests/test_tiny.py:5: in test_first\n    assert first([1, 2]) == 3\nE   assert 2 == 3\n==== end\n"
        return CommandResult(block + "".join(f"{status} {test}\n" for test, status in statuses.items()), 1)


FIRST, OTHER = "tests/test_tiny.py::test_first", "tests/test_other.py::test_clock"


def judged(tmp_path: Path, *runs: dict[str, str]):
    project = Project(RECIPE, sdist(tmp_path), tmp_path / "repo")
    baseline = _Baseline(frozenset({FIRST, OTHER}), frozenset({FIRST, OTHER}), timeout_s=1)
    mutation = next(m for m in candidates(project) if m.function == "first")
    return _Planter(project, baseline, None, None, {})._judge(mutation, Suite(*runs))


def test_a_test_that_failed_by_chance_is_no_failing_test_of_the_task(tmp_path):
    bad_luck = [{FIRST: "FAILED"}, {FIRST: "FAILED", OTHER: "FAILED"}, {OTHER: "PASSED"}]
    trial = judged(tmp_path, *bad_luck, {FIRST: "FAILED"}, {FIRST: "FAILED", OTHER: "PASSED"})
    assert (trial.reason, trial.failing) == ("", (FIRST,))


def test_a_test_in_another_file_that_fails_twice_belongs_to_the_task(tmp_path):
    trial = judged(tmp_path, {FIRST: "FAILED"}, {FIRST: "FAILED", OTHER: "FAILED"}, {OTHER: "FAILED"})
    assert (trial.reason, trial.failing) == ("", (OTHER, FIRST))


def test_a_mutation_whose_runs_never_agree_is_no_task(tmp_path):
    bad_luck = [{FIRST: "FAILED"}, {FIRST: "PASSED", OTHER: "FAILED"}, {OTHER: "FAILED"}]
    assert judged(tmp_path, *bad_luck * 3).reason == RUNS_DISAGREE


# statements

LOG = """\
=================================== FAILURES ===================================
__________________________________ test_pick ___________________________________
tests/test_tiny.py:9: in test_pick
    assert pick([3], "first") == (
tiny.py:8: in pick
    return SECRET[0]
E   TypeError: 'NoneType' object at 0x7f00deadbeef is not subscriptable
_______________________________ TestMore.test_m ________________________________
tests/test_tiny.py:20: in test_m
    assert more(1, 2) == first(3)
E   assert 4 == 5
E     
E     Use -v to get more diff
E    +  where 4 = <function more at 0x7f2a11>(1, 2)
E    +    where <function more at 0x7f2a11> = tiny.more
=========================== short test summary info ============================
PASSED tests/test_tiny.py::test_first
PASSED tests/test_tiny.py::test_ok[a b]
PASSED tests/test_tiny.py::test_ok[a-b]
XFAIL tests/test_tiny.py::test_known - a reason
SKIPPED [1] tests/test_tiny.py:30: no
FAILED tests/test_tiny.py::test_pick - TypeError: 'NoneType' object
FAILED tests/test_tiny.py::TestMore::test_m - assert 4 == 5
2 failed, 3 passed in 0.1s
"""  # noqa: W291  pytest writes them so


def test_a_statement_shows_what_the_test_saw_and_no_line_of_the_package():
    failure = read_failure(failure_block(LOG, "tests/test_tiny.py::test_pick"), "tests/test_tiny.py")
    assert failure is not None
    text = statement("tests/test_tiny.py::test_pick", failure, {"pick", "first"}, num_failing=3)
    assert text.startswith("`pick` raises TypeError\n")
    assert "SECRET" not in text
    assert "tiny.py:8" not in text
    assert "0x7f00deadbeef" not in text, "addresses differ from run to run"
    assert "`tests/test_tiny.py::test_pick` and 2 more tests fail:" in text
    assert text.endswith("Run it with: `python -m pytest -q tests/test_tiny.py::test_pick`\n")


def test_a_failed_assertion_in_a_class_names_all_functions_that_it_calls_and_no_noise():
    failure = read_failure(failure_block(LOG, "tests/test_tiny.py::TestMore::test_m"), "tests/test_tiny.py")
    assert failure == Failure(
        "assert more(1, 2) == first(3)", ("assert 4 == 5", " +  where 4 = <function more at 0x…>(1, 2)")
    )
    assert called_functions(failure.code, {"more", "first"}) == ["more", "first"]


def test_a_name_in_a_string_is_no_call():
    assert called_functions("assert pick('first') == 'more'", {"pick", "first", "more"}) == ["pick"]


def test_no_statement_is_made_of_a_failure_outside_the_test_file():
    assert read_failure("tiny.py:8: in pick\n    return 1\nE   TypeError\n", "tests/test_tiny.py") is None


@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=400), min_size=1, max_size=30)
)
def test_a_statement_is_short_and_ends_with_how_to_run_the_test(lines):
    text = statement("t.py::test_x[a b]", Failure("assert f(1)", tuple(lines)), {"f"}, 2)
    assert len(text) <= MAX_LENGTH
    assert text.endswith('Run it with: `python -m pytest -q "t.py::test_x[a b]"`\n')


def test_only_ids_that_survive_swebench_parser_are_kept():
    from swebench.harness.log_parsers import PARSER_REGISTRY

    statuses = read_statuses(LOG)
    assert statuses == {
        "tests/test_tiny.py::test_first": "PASSED",
        "tests/test_tiny.py::test_ok[a-b]": "PASSED",
        "tests/test_tiny.py::test_known": "XFAIL",
        "tests/test_tiny.py::test_pick": "FAILED",
        "tests/test_tiny.py::TestMore::test_m": "FAILED",
    }
    parsed = PARSER_REGISTRY["parse_log_pytest"](LOG, None)
    assert {test: parsed[test] for test in statuses} == statuses


# recipes


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_recipe_is_whole_and_pins_everything(name):
    recipe = load_recipe(name)
    assert recipe.package == name
    assert "pytest" in [wheel.package for wheel in recipe.wheels]
    assert suite_command(recipe).startswith("python -m pytest -rA -q")


def test_training_and_evaluation_tasks_come_from_different_projects_and_are_enough():
    recipes = [load_recipe(name) for name in bundled()]
    train = [recipe for recipe in recipes if recipe.split == "train"]
    test = [recipe for recipe in recipes if recipe.split == "test"]
    assert not {recipe.package for recipe in train} & {recipe.package for recipe in test}
    assert len(train) >= 3
    assert sum(recipe.num_tasks for recipe in train) >= 80
    assert sum(recipe.num_tasks for recipe in test) >= 24


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(ConfigError, match="toolz"):
        load_recipe("no-such-recipe")


def test_a_recipe_with_an_unknown_kind_or_key_is_refused(tmp_path):
    bad = RECIPE.model_dump(exclude_none=True)
    lines = [
        f"{key} = {list(value) if isinstance(value, tuple) else json.dumps(value)}"
        for key, value in bad.items()
        if key not in ("kinds", "wheels")
    ]
    (tmp_path / "r.toml").write_text("\n".join([*lines, "wheels = []", 'kinds = ["typo"]']))
    with pytest.raises(ConfigError, match="typo"):
        load_recipe(str(tmp_path / "r.toml"))
    (tmp_path / "r.toml").write_text("\n".join([*lines, "wheels = []", "num_taks = 3"]))
    with pytest.raises(ConfigError, match="num_taks"):
        load_recipe(str(tmp_path / "r.toml"))
