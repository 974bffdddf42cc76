"""The similarity reward beside the standard library's difflib: equal on every pair, and how much faster.

    python scripts/bench/reward.py [steps.jsonl or .traj.json …]

Pairs of actions are drawn from the files' real commands (each against an edited copy of itself and against another),
and from random text over small and large alphabets, where long matches and ties are frequent.
"""

from __future__ import annotations

import difflib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from swe_srl.dialogue import format_action
from swe_srl.rewards.similarity import similarity
from swe_srl.schema import Step
from swe_srl.store import read_records

NUM_PAIRS = 100_000
ALPHABETS = ("ab", "abcd \n", "abcdefghijklmnopqrstuvwxyz_()[]=.,:'\" \n", "aé漢🙂\t ")
ACTION_LENGTH = 600
NUM_TIMED = 300


def reference(student: str, expert: str) -> float:
    """What the paper names."""
    return difflib.SequenceMatcher(None, student, expert, autojunk=False).ratio()


def main() -> None:
    """Compare, then time."""
    rng = random.Random(1)
    actions = [action for path in sys.argv[1:] for action in actions_of(Path(path))]
    print(f"{len(actions)} real actions")
    pairs = list(make_pairs(actions, rng))
    different = [pair for pair in pairs if similarity(*pair) != reference(*pair)]
    print(f"{len(different)} of {len(pairs)} pairs differ")
    for kind, timed in (("real", long_real(actions, rng)), ("edited random text", long_random(rng))):
        if timed:
            print(f"{ACTION_LENGTH} characters, {kind}: " + "; ".join(speed(timed) for _ in range(3)))
    sys.exit(1 if different else 0)


def actions_of(path: Path) -> Iterator[str]:
    """The commands in a file of ours or of mini-swe-agent, in the protocol's XML form."""
    if path.suffix == ".jsonl":
        yield from (format_action(step.command) for step in read_records(path, Step))
        return
    for message in json.loads(path.read_text())["messages"]:
        if message["role"] == "assistant" and isinstance(message["content"], str):
            yield message["content"]


def make_pairs(actions: list[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """Half of the pairs from `actions`, where there are any, the rest random."""
    num_real = NUM_PAIRS // 2 if actions else 0
    for _ in range(num_real // 2):
        action = rng.choice(actions)[:2000]
        yield edited(action, rng), action
        yield rng.choice(actions)[:400], rng.choice(actions)[:400]
    for _ in range(NUM_PAIRS - num_real):
        alphabet = rng.choice(ALPHABETS)
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 250)))
        yield (edited(text, rng), text) if rng.random() < 0.7 else (text, "".join(rng.choices(alphabet, k=100)))


def edited(text: str, rng: random.Random) -> str:
    """`text` with a few stretches cut out, doubled or replaced."""
    for _ in range(rng.randint(0, 6)):
        start, length = rng.randint(0, len(text)), rng.randint(0, 12)
        text = text[:start] + rng.choice(("", "x" * length, text[start : start + length] * 2)) + text[start + length :]
    return text


def long_real(actions: list[str], rng: random.Random) -> list[tuple[str, str]]:
    """Pairs of ACTION_LENGTH characters: real actions put one after another, and edited copies of them."""
    joined = "\n".join(rng.sample(actions, len(actions)))
    starts = range(0, len(joined) - ACTION_LENGTH, ACTION_LENGTH)
    texts = [joined[start : start + ACTION_LENGTH] for start in starts][:NUM_TIMED]
    return [(edited(text, rng), text) for text in texts]


def long_random(rng: random.Random) -> list[tuple[str, str]]:
    """As `long_real`, of random letters."""
    texts = ["".join(rng.choices(ALPHABETS[2], k=ACTION_LENGTH)) for _ in range(NUM_TIMED)]
    return [(edited(text, rng), text) for text in texts]


def speed(pairs: list[tuple[str, str]]) -> str:
    """Median time of both, side by side."""
    ours, theirs = [], []
    for pair in pairs:
        theirs.append(timed(reference, pair))
        ours.append(timed(similarity, pair))
    a, b = statistics.median(ours), statistics.median(theirs)
    return f"{a * 1e6:.0f} against {b * 1e6:.0f} µs, {b / a:.1f} times"


def timed(function: Callable[[str, str], float], pair: tuple[str, str]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    function(*pair)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
