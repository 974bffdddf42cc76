"""One SRL update, sampling and training, three ways in one run: the token tree, plain sequences, and TRL's GRPOTrainer.

    pip install trl
    python scripts/bench/tree.py [--model random|smollm2-135m|DIR] [--updates 3] [--dtype bf16]

All three have the same weights, the same prompts (the history of a trajectory of 20 steps, 100 to 2,000 tokens, real
source text), 8 answers of 60 tokens each, the same reward, clipped objective and AdamW. Each is a process of its own, as
its users run it; they take turns, update by update. Plain sequences are this package's trainer with one sequence in each
pass and transformers' own `generate`. TRL is given no reference model, no gradient checkpointing and no padding to speak
of (one prompt with its answers at a time), or with --trl-prompts more prompts at once. Tokens are counted where the model
looks up its embeddings, padding included. The first update of each warms up (kernels are chosen, memory is fetched): it
is shown, and not to be counted.
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random", help="random: a Qwen2 of 3M parameters")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--ways", default="tree,plain,trl")
    parser.add_argument("--trl-prompts", type=int, default=1, help="prompts that TRL takes through the model at once")
    parser.add_argument("--trl-keeps-memory", action="store_true", help="give TRL this package's settings of malloc")
    parser.add_argument("--out", type=Path, help="append the figures to this JSONL file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) / "work.json"
        work.write_text(json.dumps(make_work(options, Path(scratch))._asdict()))
        runs = {name: Run(name, work) for name in options.ways.split(",")}
        for number in range(options.updates + 1):
            results = {name: run.update() for name, run in runs.items()}
            print(line(number, results), flush=True)
            if options.out:
                figures = {name: result._asdict() for name, result in results.items()}
                row = {"model": options.model, "dtype": options.dtype, "update": number, **figures}
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


class Run:
    """One way, in its own process."""

    def __init__(self, way: str, work: Path) -> None:
        script = Path(__file__).with_name(SCRIPTS[way])
        self._process = subprocess.Popen(
            [sys.executable, script, way, work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | WAITING,
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


def line(number: int, results: dict[str, Measured]) -> str:
    """One update of each, beside the first."""
    first = next(iter(results.values()))
    words = [
        f"{name} {result.seconds:.1f} s ({result.sampling_s:.1f} sampling), {result.num_tokens} tokens"
        + ("" if result is first else f" ({result.seconds / first.seconds:.1f} x, {result.num_tokens / first.num_tokens:.1f} x)")
        for name, result in results.items()
    ]  # fmt: skip
    return (f"update {number}: " if number else "warm-up: ") + "; ".join(words)


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
    return Work(str(path), options.dtype, tuple(prompts), tuple(targets), options.trl_prompts, options.trl_keeps_memory)


if __name__ == "__main__":
    main()
