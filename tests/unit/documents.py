"""The project's Markdown → its commands, links and paths, for tests of what it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "trajectories/README.md", *ROOT.glob("docs/**/*.md"))
)

_FENCE = re.compile(r"^```(?P<language>[\w-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:\w+=\S+ +)*(?:swe-srl |python scripts/|torchrun .*-m swe_srl\.cli )")
_ENDS = ("|", "||", "&&", ";", "&", ">", ">>", "<")


class Block(NamedTuple):
    """One fenced block."""

    page: Path
    line: int
    language: str
    text: str


class Command(NamedTuple):
    """One command that a reader would type."""

    page: Path
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """As a shell would split it, up to a pipe or the next command."""
        words = shlex.split(self.text, comments=True)
        return words[: next((n for n, word in enumerate(words) if word in _ENDS), len(words))]

    @property
    def arguments(self) -> list[str]:
        """What `swe-srl` is given; nothing of another program."""
        words = self.words
        if "swe_srl.cli" in words:
            return words[words.index("swe_srl.cli") + 1 :]
        return words[words.index("swe-srl") + 1 :] if "swe-srl" in words else []

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 2, found["language"], found["text"])


def typed(block: Block) -> Iterator[Command]:
    """Everything that a block tells a reader to type: after `$ ` in a console, each line elsewhere; `\\` goes on."""
    lines = iter(enumerate(block.text.splitlines(), start=block.line))
    for number, line in lines:
        if block.language == "console" and not line.startswith("$ "):
            continue
        text = line.removeprefix("$ ")
        while text.endswith("\\"):
            text = text[:-1] + next(lines)[1].strip()
        if block.language == "":  # a command, blanks, and what it does
            text = re.split(r"\s{2,}", text)[0]
        yield Command(block.page, number, text.strip())


def commands(page: Path) -> Iterator[Command]:
    """The commands of ours in a page's blocks."""
    for block in blocks(page):
        if block.language in ("console", "bash", ""):
            yield from (command for command in typed(block) if _COMMAND.match(command.text))


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What a link to a heading of this page may end with."""
    found = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}
