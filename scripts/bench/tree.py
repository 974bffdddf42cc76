"""One SRL update, sampling and training, three ways in one run: the token tree, plain sequences, and TRL's GRPOTrainer.

    pip install trl
    python scripts/bench/tree.py [--model random|smollm2-135m|DIR] [--updates 3] [--dtype bf16]

All three have the same weights, the same prompts (the history of a trajectory of 20 steps, 100 to 2,000 tokens, real
source text), 8 answers of 60 tokens each, the same reward, clipped objective and AdamW. Each is a process of its own,
as its users run it; they take turns, update by update, or where memory does not hold all of them at once, follow each
other (--one-by-one). Plain sequences are this package's trainer with one sequence in each pass and transformers' own
`generate`. TRL is given no reference model, no gradient checkpointing and no padding to speak of (one prompt with its
answers at a time; with --trl-rows fewer or more). Tokens are counted where the model looks up its embeddings, padding
included. The first update of each warms up (kernels are chosen, memory is fetched): it is shown, and not to be counted.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tree_common import GROUP_SIZE, NEW_TOKENS, NUM_STEPS, Measured, Work

from swe_srl.policy.embedded import EMBEDDED, embedded_directory
from swe_srl.testing.tiny import tiny_student

TOKENS_PER_STEP = 100
QWEN_MLP = 4864 / 896
"""Width of the feed-forward layers of Qwen2.5-0.5B in times of the model's width."""
SCRIPTS = {"tree": "tree_ours.py", "plain": "tree_ours.py", "trl": "tree_trl.py"}
WAITING = {"GOMP_SPINCOUNT": "300000"}
"""Threads wait as by OpenMP's own default, in all three: nothing is to run beside."""
KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_MMAP_MAX_": "0", "THP_MEM_ALLOC_ENABLE": "1"}
"""What this package settles for itself (swe_srl/policy/process.py), as another process is given it."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random", help="random: a Qwen2 of 3M parameters")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--ways", default="tree,plain,trl")
    parser.add_argument("--trl-rows", type=int, default=GROUP_SIZE, help="answers that TRL trains on in one pass")
    parser.add_argument("--trl-keeps-memory", action="store_true", help="give TRL this package's settings of malloc")
    parser.add_argument("--one-by-one", action="store_true", help="end one way before the next begins")
    parser.add_argument("--out", type=Path, help="append the figures to this JSONL file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) / "work.json"
        work.write_text(json.dumps(make_work(options, Path(scratch))._asdict()))
        results: dict[int, dict[str, Measured]] = {}
        for number, name, result in measure(options, work):
            print(f"{title(number)}, {name}: {result.seconds:.1f} s", file=sys.stderr)
            results.setdefault(number, {})[name] = result
            if options.out:
                row = {
                    "model": options.model,
                    "dtype": options.dtype,
                    "update": number,
                    "way": name,
                    **result._asdict(),
                }
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    for number, of_update in results.items():
        print(line(number, of_update))


def measure(options: argparse.Namespace, work: Path) -> Iterator[tuple[int, str, Measured]]:
    """Update, way and what it took, in the order asked for."""
    ways, numbers = options.ways.split(","), range(options.updates + 1)
    for together in [[name] for name in ways] if options.one_by_one else [ways]:
        runs = {
            name: Run(name, work, KEEPING if options.trl_keeps_memory and name == "trl" else {}) for name in together
        }
        for number in numbers:
            for name, run in runs.items():
                yield number, name, run.update()
        for run in runs.values():
            run.end()


class Run:
    """One way, in its own process."""

    def __init__(self, way: str, work: Path, environment: dict[str, str]) -> None:
        script = Path(__file__).with_name(SCRIPTS[way])
        self._process = subprocess.Popen(
            [sys.executable, script, way, work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | WAITING | environment,
        )  # fmt: skip

    def update(self) -> Measured:
        """Have it make one more."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{self._process.args[2]} ended: {self._process.wait()}")  # type: ignore[index]
        return Measured(**json.loads(answer))

    def end(self) -> None:
        """No more."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def line(number: int, results: dict[str, Measured]) -> str:
    """One update of each, beside the first."""
    first = next(iter(results.values()))
    words = [
        f"{name} {result.seconds:.1f} s ({result.sampling_s:.1f} sampling), {result.num_tokens} tokens"
        + ("" if result is first else f" ({result.seconds / first.seconds:.1f} x, {result.num_tokens / first.num_tokens:.1f} x)")
        for name, result in results.items()
    ]  # fmt: skip
    return f"{title(number)}: {'; '.join(words)}"


def title(number: int) -> str:
    """The name of an update."""
    return f"update {number}" if number else "warm-up"


def make_work(options: argparse.Namespace, scratch: Path) -> Work:
    """The model's directory and a trajectory's prompts, each the beginning of the next."""
    from transformers import AutoTokenizer

    if options.model == "random":
        path = tiny_student(scratch / "random", width=256, layers=2, vocabulary=2048, mlp=QWEN_MLP)
    else:
        path = embedded_directory() if options.model == EMBEDDED else Path(options.model)
    tokenizer = AutoTokenizer.from_pretrained(path)
    source = inspect.getsource(textwrap) + inspect.getsource(argparse)
    ends = [index + 1 for index, char in enumerate(source) if char == "\n"]
    prompts, targets = [], []
    for step in range(1, NUM_STEPS + 1):
        end = next(end for end in ends if len(tokenizer(source[:end]).input_ids) >= step * TOKENS_PER_STEP - 20)
        prompts.append(source[:end])
        targets.append(source[end : end + 4 * NEW_TOKENS])
    lengths = [len(tokenizer(prompt).input_ids) for prompt in prompts]
    print(f"{NUM_STEPS} prompts of {lengths[0]} to {lengths[-1]} tokens, {GROUP_SIZE} answers of {NEW_TOKENS}")
    return Work(str(path), options.dtype, tuple(prompts), tuple(targets), options.trl_rows)


if __name__ == "__main__":
    main()
