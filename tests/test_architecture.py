"""The shape of the house: layers, names, free imports, and a README that tells the truth about the tree."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "swe_srl"
HEAVY = {"torch", "transformers", "docker", "swebench", "openai", "datasets", "vllm", "ray"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy():
    loaded = set(python("import sys, swe_srl; print(*{name.partition('.')[0] for name in sys.modules})").split())
    assert not loaded & HEAVY


def timed(code: str) -> tuple[float, str]:
    """Seconds a fresh interpreter took for `code`, and what it said."""
    begun = time.perf_counter()
    shown = python(code)
    return time.perf_counter() - begun, shown


def test_help_loads_nothing_heavy_and_answers_in_under_400_milliseconds():
    code = (
        "import sys\nfrom swe_srl.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert not end.code\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    shares = []
    for _ in range(5):
        bare, _said = timed("pass")
        seconds, shown = timed(code)
        shares.append(seconds / max(0.4, 30 * bare))  # where the machine is busy, an empty interpreter is slow too
    assert not set(shown.partition("LOADED")[2].split()) & HEAVY
    assert min(shares) < 1, f"--help took {shares} times what it may"


@pytest.mark.parametrize("module", [p.stem for p in (PACKAGE / "cli").glob("*.py") if p.stem != "__main__"])
def test_a_verb_module_is_free_to_import(module):
    loaded = set(
        python(f"import sys, swe_srl.cli.{module}; print(*{{n.partition('.')[0] for n in sys.modules}})").split()
    )
    assert not loaded & HEAVY


def test_every_verb_of_the_table_exists_and_has_help():
    from typer.testing import CliRunner

    from swe_srl.cli import VERBS, app

    for verb in VERBS:
        result = CliRunner().invoke(app, [verb, "--help"])
        assert result.exit_code == 0, f"{verb}: {result.output}"
        assert "Usage" in result.output


def test_an_unknown_verb_is_a_usage_error():
    from typer.testing import CliRunner

    from swe_srl.cli import app

    assert CliRunner().invoke(app, ["frobnicate"]).exit_code == 2


def test_the_import_contract_holds():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_material_folders_hold_no_python_and_share_no_name_with_a_package():
    material = ["sandboxes", "trajectories"]
    for name in material:
        assert not list((ROOT / name).rglob("*.py")), f"{name}/ is material"
        assert not (PACKAGE / name).exists()


def test_every_path_in_the_tree_of_the_readme_exists():
    tree = re.search(r"```tree\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree, "the README has a ```tree block"
    parents: list[str] = []
    checked = 0
    for line in tree.group(1).splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            path = Path(*parents[:depth], name)
            assert (ROOT / path).exists(), f"README names {path}"
            checked += 1
        parents = [*parents[:depth], name]
    assert checked > 40


def test_every_package_is_in_the_tree_of_the_readme():
    tree = (ROOT / "README.md").read_text()
    for path in PACKAGE.iterdir():
        if path.name.startswith("__") or path.suffix not in {"", ".py"}:
            continue
        assert path.name in tree, f"README's tree lacks {path.name}"


def test_no_function_is_longer_than_a_page_and_no_file_than_a_few():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 350, f"{path.relative_to(ROOT)} makes one scroll"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                # The options of a verb are declarations: the body is what a reader has to follow.
                assert node.end_lineno - node.body[0].lineno < 70, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def test_every_module_says_what_it_is():
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"


def test_the_json_schemas_are_those_of_the_nouns():
    done = subprocess.run(
        [sys.executable, "scripts/schemas.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
