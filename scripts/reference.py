"""Write docs/reference/ from the code: verbs and their options, settings and presets. With --check, only say whether it is current."""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import typer
from reference_config import config_page, escape, type_words

from swe_srl.cli import VERBS

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
WRITTEN_BY = "<!-- Written by scripts/reference.py from the code: change it there, then run that. -->"

INTRODUCTION = """\
Exit codes: 0, the run is finished, whatever came of it; 2, the input is wrong, and one sentence says what to do; 3, the apparatus
failed (engine, endpoint, disk): call the same command again. A verb that was stopped goes on when it is called again with the same
`--out`."""


class Option(NamedTuple):
    """One argument or option of a verb, as its function declares it."""

    names: str
    kind: str
    default: str
    words: str


def main() -> int:
    """Write what is stale; 1 when asked to check and something is."""
    pages = {"cli.md": cli_page(), "config.md": config_page(WRITTEN_BY)}
    stale = [name for name, text in pages.items() if _read(FOLDER / name) != text]
    if "--check" in sys.argv:
        print(*(["stale, run scripts/reference.py:", *stale] if stale else ["current"]))
        return bool(stale)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(pages[name])
    print("written:" if stale else "current", *stale)
    return 0


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def cli_page() -> str:
    """Every verb, in pipeline order."""
    parts = [
        "# The command line",
        WRITTEN_BY,
        INTRODUCTION,
        "\n".join(f"- [`{name}`](#{_anchor(name)}): {words[0]}" for name, words in _all_verbs()),
    ]
    for name, (_line, callback) in _all_verbs():
        options = list(_options(callback))
        parts += [f"## `{name}`", inspect.cleandoc(callback.__doc__ or "")]
        if options:
            rows = (f"| {option.names} | {option.kind} | {option.default} | {option.words} |" for option in options)
            parts.append("\n".join(("| | value | default | |", "|---|---|---|---|", *rows)))
    return "\n\n".join(parts) + "\n"


def _all_verbs() -> Iterator[tuple[str, tuple[str, Callable[..., None]]]]:
    """Each verb's whole name, with its line and its function."""
    for verb, (target, line) in VERBS.items():
        module, _, name = target.partition(":")
        found = getattr(importlib.import_module(module), name)
        if not isinstance(found, typer.Typer):
            yield f"swe-srl {verb}", (line, found)
            continue
        for command in found.registered_commands:
            assert command.callback
            part = command.name or command.callback.__name__.replace("_", "-")
            yield f"swe-srl {verb} {part}", ((command.callback.__doc__ or "").strip().split("\n")[0], command.callback)


def _options(callback: Callable[..., None]) -> Iterator[Option]:
    """What a verb takes: arguments first."""
    hints = typing.get_type_hints(callback, include_extras=True)
    arguments, options = [], []
    for name, parameter in inspect.signature(callback).parameters.items():
        plain, *extras = get_args(hints[name]) if hasattr(hints[name], "__metadata__") else (hints[name],)
        info = next((extra for extra in extras if isinstance(extra, (typer.models.OptionInfo, typer.models.ArgumentInfo))), None)  # fmt: skip
        is_argument = isinstance(info, typer.models.ArgumentInfo)
        required = parameter.default is inspect.Parameter.empty
        default = "required" if required else _default_of_option(parameter.default)
        if info is not None and info.envvar:
            default = f"`${info.envvar}`"
        low, high = (info.min, info.max) if info is not None else (None, None)
        limits = "".join((f", ≥ {low:g}" if low is not None else "", f", ≤ {high:g}" if high is not None else ""))
        words = " ".join((info.help or "").split()) if info is not None else ""
        item = Option(
            _names(name, info, plain),
            "" if plain is bool else escape(type_words(plain) + limits),
            default,
            escape(words),
        )
        (arguments if is_argument else options).append(item)
    yield from arguments
    yield from options


def _names(name: str, info: Any, plain: Any) -> str:
    if isinstance(info, typer.models.ArgumentInfo):
        return f"`{escape(info.metavar or name.upper())}`"
    # typer takes the first name as a default, and sees by its dashes that it is none
    found = (info.default, *(info.param_decls or ())) if info is not None else ()
    declared = [one for one in found if isinstance(one, str) and one.startswith("-")]
    dashed = name.rstrip("_").replace("_", "-")
    names = declared or [f"--{dashed}", *([f"--no-{dashed}"] if plain is bool else [])]
    return ", ".join(f"`{one}`" for one in names)


def _default_of_option(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"


def _anchor(heading: str) -> str:
    return heading.replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
