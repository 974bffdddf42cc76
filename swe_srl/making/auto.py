"""Any project → its recipe, as one would write it by hand; kept beside the tasks that are made with it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from swe_srl.making.archive import open_source
from swe_srl.making.images import base_image
from swe_srl.making.prepare import without_failing
from swe_srl.making.recipe import Recipe, load_recipe
from swe_srl.making.source import recipe_of
from swe_srl.store import write_text


def recipe_for(
    target: str,
    out: Path,
    *,
    num_tasks: int,
    revision: str = "HEAD",
    needs: Sequence[str] = (),
    tests: Sequence[str] = (),
) -> Recipe:
    """The recipe of the project that `target` names; the one in `out`/recipes where it was made of the same files.

    Raises what `open_source`, `recipe_of` and `without_failing` do.
    """
    source = open_source(target, revision=revision)
    recipe = recipe_of(source, num_tasks=num_tasks, needs=needs, tests=tests)
    path = out / "recipes" / f"{recipe.package}.toml"
    if path.is_file():
        known = load_recipe(str(path))
        if known.model_copy(update={"deselect": (), "num_tasks": num_tasks}) == recipe.model_copy(
            update={"deselect": ()}
        ):
            return known.model_copy(update={"num_tasks": num_tasks})
    recipe = without_failing(recipe, base_image())
    write_text(path, recipe_toml(recipe))
    return recipe


def recipe_toml(recipe: Recipe) -> str:
    """A recipe as the text of a TOML file that `load_recipe` reads."""
    lines = [f"# Made by `swe-srl tasks make {recipe.source}`; correct it by hand and give it in place of the project."]
    for key, value in recipe.model_dump(exclude_defaults=True, exclude={"wheels"}).items():
        lines.append(f"{key} = {_toml_value(value)}")
    for wheel in recipe.wheels:
        lines += ["", "[[wheels]]", *(f"{key} = {_toml_value(value)}" for key, value in wheel.model_dump().items())]
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    assert isinstance(value, tuple | list)
    return f"[{', '.join(_toml_value(item) for item in value)}]"


def _quoted(text: str) -> str:
    """A basic string of TOML, whose escapes are those of JSON."""
    import json

    return json.dumps(text, ensure_ascii=True)
