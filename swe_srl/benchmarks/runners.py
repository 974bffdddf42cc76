"""Repository → how its tests are run, for rows that do not say it; and the eval script that does it.

Commands and parsers are those of SWE-bench v5's own rows. Where a repository is not known, pytest is assumed, and the row
has to prove it: `swe-srl tasks check` tells whether the gold patch resolves.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from swe_srl.benchmarks.patches import touched_files

START, END = ": '>>>>> Start Test Output'", ": '>>>>> End Test Output'"
_PYTEST = "pytest -rA"
_KNOWN = {
    "django/django": ("./tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1", "parse_log_django"),
    "sympy/sympy": (
        "PYTHONWARNINGS='ignore::UserWarning,ignore::SyntaxWarning' bin/test -C --verbose",
        "parse_log_sympy",
    ),
    "sphinx-doc/sphinx": ("tox --current-env -epy39 -v --", "parse_log_sphinx"),
    "scikit-learn/scikit-learn": (_PYTEST, "parse_log_scikit"),
    "pydata/xarray": (_PYTEST, "parse_log_xarray"),
    "mwaskom/seaborn": (f"{_PYTEST} --no-header", "parse_log_seaborn"),
    "matplotlib/matplotlib": (_PYTEST, "parse_log_matplotlib"),
    "astropy/astropy": (_PYTEST, "parse_log_astropy"),
    "psf/requests": (_PYTEST, "parse_log_requests"),
    "pylint-dev/pylint": (_PYTEST, "parse_log_pylint"),
    "pvlib/pvlib-python": (_PYTEST, "parse_log_pvlib"),
    "pylint-dev/astroid": (_PYTEST, "parse_log_astroid"),
    "pyvista/pyvista": (_PYTEST, "parse_log_pyvista"),
    "pydicom/pydicom": (_PYTEST, "parse_log_pydicom"),
    "sqlfluff/sqlfluff": (_PYTEST, "parse_log_sqlfluff"),
    "marshmallow-code/marshmallow": (_PYTEST, "parse_log_marshmallow"),
}


class Runner(NamedTuple):
    """How the tests of a repository are run, and how what they print is read."""

    command: str
    log_parser: str
    by_module: bool = False
    """Takes `package.module` where others take a file's path."""

    def directives(self, files: Sequence[str]) -> list[str]:
        """What the command is given for these files of tests."""
        files = [file for file in files if file.endswith(".py")]
        if not self.by_module:
            return files
        return [file.removeprefix("tests/").removesuffix(".py").replace("/", ".") for file in files]


def runner_of(repo: str) -> Runner:
    """The runner of `owner/name`."""
    command, parser = _KNOWN.get(repo, (_PYTEST, "parse_log_pytest"))
    return Runner(command, parser, by_module=repo == "django/django")


def eval_script(
    command: str,
    directives: Sequence[str],
    *,
    base: str = "",
    test_patch: str = "",
    before: str = "",
    after: str = "",
    workdir: str = "/testbed",
) -> str:
    """The script that grades: trusted tests into the tree, one test command between the markers, tests back again.

    Args:
        command: what runs the tests.
        directives: what it is given.
        base: commit that the tests of `test_patch` are a patch to.
        test_patch: brings the trusted tests.
        before: another way to bring them.
        after: what takes them back.
        workdir: where the repository is.
    """
    lines = [
        "#!/bin/bash",
        "set -uxo pipefail",
        "if [ -f /opt/miniconda3/bin/activate ]; then source /opt/miniconda3/bin/activate && conda activate testbed; fi",
        f"cd {workdir}",
        f"git config --global --add safe.directory {workdir}",
    ]
    restore = [
        f"git checkout {base} -- {shlex.quote(file)} 2>/dev/null || rm -f {shlex.quote(file)}"
        for file in touched_files(test_patch)
    ]
    apply = ["git apply -v - <<'EOF_OF_TEST_PATCH'", test_patch.rstrip("\n"), "EOF_OF_TEST_PATCH"] if test_patch else []
    run = " ".join([command, *(shlex.quote(directive) for directive in directives)])
    middle = [*([before] if before else []), *restore, *apply, START, run, END, *restore, *([after] if after else [])]
    return "\n".join([*lines, *middle]) + "\n"
