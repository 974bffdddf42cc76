"""Box → texts of files, as much of them as a budget of tokens holds; and texts back into the box."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from swe_srl.policy.base import CountsTokens, Policy
from swe_srl.policy.chat import CHARS_PER_TOKEN, TEMPLATE_TOKENS
from swe_srl.runtime.base import Sandbox

Count = Callable[[str], int]
"""Text → tokens."""


class Source(NamedTuple):
    """A text file of a repository, its lines ending in a newline alone."""

    path: str
    text: str
    original: bytes

    def encoded(self, text: str) -> bytes:
        """`text` as this file would hold it: with its ends of lines, and the bytes that are no UTF-8 as they were."""
        ends = text.replace("\n", "\r\n") if b"\r\n" in self.original else text
        return ends.encode("utf-8", "surrogateescape")


class Shown(NamedTuple):
    """What fits a budget."""

    text: str
    num_tokens_cut: int = 0


def token_counter(policy: Policy) -> Count:
    """The policy's own count, or an estimate that is rather too high where it cannot tell."""
    if isinstance(policy, CountsTokens):
        return policy.count_tokens
    return lambda text: math.ceil(len(text) / CHARS_PER_TOKEN)


def room(policy: Policy, max_prompt_tokens: int, max_new_tokens: int) -> int:
    """Tokens that a prompt may have, what a chat template adds taken off: the budget, or less where the model reads less."""
    if isinstance(policy, CountsTokens):
        max_prompt_tokens = min(max_prompt_tokens, policy.context_tokens - max_new_tokens)
    return max_prompt_tokens - TEMPLATE_TOKENS


def read_source(box: Sandbox, path: str) -> Source | None:
    """A file of the repository; None for what is none, or no text."""
    try:
        content = box.read_file(path)
    except OSError:
        return None
    if b"\0" in content:
        return None
    text = content.decode("utf-8", "surrogateescape")
    return Source(path, text.replace("\r\n", "\n") if b"\r\n" in content else text, content)


def try_edit(box: Sandbox, sources: Mapping[str, Source], texts: Mapping[str, str]) -> str:
    """The patch that these texts make of the files, by git in the box, which then is as it was before."""
    for path, text in texts.items():
        box.write_file(path, sources[path].encoded(text))
    patch = box.diff()
    for path in texts:
        box.write_file(path, sources[path].original)
    return patch


def show(sources: Sequence[Source], budget: int, count: Count) -> Shown:
    """The files one after the other, each under `### path`, in at most `budget` tokens.

    Where they do not all fit, the short ones stay whole and the others get equal shares of what is left: a file keeps whole
    lines of its beginning and its end, half of its share each.
    """
    sizes = {source.path: count(_page(source.path, source.text)) for source in sources}
    left, shares = budget, dict[str, int]()
    for number, path in enumerate(sorted(sizes, key=lambda path: sizes[path])):
        shares[path] = min(sizes[path], max(0, left // (len(sizes) - number)))
        left -= shares[path]
    pages = [_fitted(source, shares[source.path], sizes[source.path], count) for source in sources]
    text = "\n\n".join(page for page in pages if page)
    kept = sum(count(page) for page in pages if page)
    return Shown(text, max(0, sum(sizes.values()) - kept))


def _page(path: str, text: str) -> str:
    # bytes that are no UTF-8 cannot be shown, nor searched for
    return f"### {path}\n{text.rstrip()}".encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _fitted(source: Source, share: int, size: int, count: Count) -> str:
    """The page of a file within its share; empty where not a line fits."""
    if size <= share:
        return _page(source.path, source.text)
    lines = source.text.rstrip().split("\n")

    def page(kept: int) -> str:
        head, tail = lines[: kept - kept // 2], lines[len(lines) - kept // 2 :]
        gap = f"[… {len(lines) - kept} lines left out …]"
        return _page(source.path, "\n".join([*head, gap, *tail]))

    low, high = 0, len(lines) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(page(middle)) <= share else (low, middle - 1)
    return page(low) if low and count(page(low)) <= share else ""
