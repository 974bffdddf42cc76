"""An answer while it is written → tokens that may come next, from what followed the same few tokens before.

An agent's answers repeat themselves: their form, lines and names of their prompt, each other. Tokens guessed from that go
through the model beside the last one, which costs little more than the last one alone; what the model would not have
chosen is thrown away, so guesses change how fast an answer is written and nothing else. (Prompt-lookup decoding; for
agents' answers to each other: SuffixDecoding, arXiv 2411.04975.)
"""

from __future__ import annotations

from collections.abc import Sequence

RUNS = (5, 2)
"""How many tokens must have stood before; the longer run is asked first."""

MAX_KNOWN = 500_000
"""Runs that are remembered, about 100 bytes each; with more, all are forgotten."""


class Continuations:
    """Which token stood last behind each run of tokens."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}

    def learn(self, ids: Sequence[int], start: int = 0) -> None:
        """Take in the tokens of `ids` from `start` on; those before only say what they stood behind."""
        if len(self._next) > MAX_KNOWN:
            self._next.clear()
        for size in RUNS:
            for place in range(max(size, start), len(ids)):
                self._next[tuple(ids[place - size : place])] = ids[place]

    def after(self, run: Sequence[int]) -> int | None:
        """The token that stood last behind `run`."""
        return self._next.get(tuple(run))


class Drafts:
    """Guesses for the answers to some prompts, from each one's own prompt and answers first, then from all answers."""

    def __init__(self, prompts: Sequence[Sequence[int]], answers: Continuations) -> None:
        """What is written goes into `answers` too."""
        self._own = [Continuations() for _ in prompts]
        for known, prompt in zip(self._own, prompts, strict=True):
            known.learn(prompt)
        self._tails = [tuple(prompt[-max(RUNS) :]) for prompt in prompts]
        self._answers = answers

    def learn(self, prompt: int, ids: Sequence[int], num_new: int) -> None:
        """An answer to `prompt` is now `ids`, of which the last `num_new` tokens are new."""
        text = self._text(prompt, ids, num_new + max(RUNS))
        start = len(text) - num_new
        self._own[prompt].learn(text, start)
        self._answers.learn(text, start)

    def guess(self, prompt: int, ids: Sequence[int], limit: int) -> list[int]:
        """At most `limit` tokens that may follow `ids`, an answer to `prompt`."""
        text = self._text(prompt, ids, max(RUNS))
        first = len(text)
        while len(text) - first < limit:
            token = self._likely(prompt, text)
            if token is None:
                break
            text.append(token)
        return text[first:]

    def _text(self, prompt: int, ids: Sequence[int], count: int) -> list[int]:
        """The last `count` tokens of the prompt and the answer, where there are so many."""
        missing = count - len(ids)
        return [*(self._tails[prompt][-missing:] if missing > 0 else ()), *ids[-count:]]

    def _likely(self, prompt: int, text: Sequence[int]) -> int | None:
        for size in RUNS:
            if len(text) < size:
                continue
            for known in (self._own[prompt], self._answers):
                token = known.after(text[-size:])
                if token is not None:
                    return token
        return None
