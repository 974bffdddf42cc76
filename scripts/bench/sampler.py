"""Answers to the steps of one trajectory by both samplers, side by side in one process: the student itself, and vLLM.

    pip install 'swe-srl[train,vllm]'   (docs/vllm.md says how on a CPU)
    python scripts/bench/sampler.py [--model random|smollm2-135m|DIR] [--dtype bf16] [--rounds 4] [--answers 8]
    python scripts/bench/sampler.py --greedy [--model …]

Both have the same weights, the same 20 prompts (the history of a trajectory, 100 to 2,000 tokens, real source text) and
write answers of 60 tokens, none of which ends sooner. They take turns, round by round, and forget before each round what
they read: in training the weights have changed. The first round warms up: it is shown, and not to be counted. Tokens a
CPU second are what can be compared where other work runs beside.

With --greedy, 50 prompts are answered greedily in fp32 instead, and the ids are compared; where they part, the two
candidates' log-probabilities by the student are shown, which tells a tie from a mistake.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tree import make_work
from tree_common import NEW_TOKENS

from swe_srl.policy.load import load_student, require_torch

require_torch()

from swe_srl.policy.base import Completion, Sampling
from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.scoring import score
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.policy.vllm import VllmConfig, VllmPolicy
from swe_srl.policy.vllm_engine import start
from swe_srl.training.objective import Group
from swe_srl.training.sampling import weights_of

MAX_TOKENS = 2600
NUM_GREEDY = 50

Ids = tuple[int, ...]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random", help="random: a Qwen2 of 3M parameters")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--greedy", action="store_true")
    options = parser.parse_args()
    options.dtype = "fp32" if options.greedy else options.dtype
    options.trl_rows = 0
    with tempfile.TemporaryDirectory() as scratch:
        work = make_work(options, Path(scratch))
        student = load_student(work.model, dtype=work.dtype, device=options.device)
        engine = start(work.model, VllmConfig(), dtype=work.dtype, max_tokens=MAX_TOKENS)
    beside = VllmPolicy(engine, student.codec, "vllm", max_tokens=MAX_TOKENS)
    prompts = [tuple(student.codec.tokenizer(prompt).input_ids) for prompt in work.prompts]
    if options.greedy:
        compare(student, beside, prompts)
    else:
        race({"local": student, "vllm": beside}, student, prompts, options)
    beside.close()


def race(
    policies: dict[str, TokenPolicy], student: LocalPolicy, prompts: list[Ids], options: argparse.Namespace
) -> None:
    """Round after round, each policy after the other."""
    num_tokens = len(prompts) * options.answers * NEW_TOKENS
    ratios: dict[str, list[float]] = {"second": [], "CPU second": []}
    print(f"here {options.answers} answers to each prompt")
    for number in range(options.rounds + 1):
        sampling = Sampling(temperature=1.0, max_new_tokens=NEW_TOKENS, stop="", seed=number)
        rates: dict[str, tuple[float, float]] = {}
        for name, policy in policies.items():
            policy._eos = set()  # noqa: SLF001 - every answer is to be of the full length
            policy.update(weights_of(student.model))
            begun, begun_cpu = time.perf_counter(), time.process_time()
            answers = policy.complete_ids(prompts, sampling, num_samples=options.answers)
            took, took_cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
            rates[name] = num_tokens / took, num_tokens / took_cpu
            assert sum(answer.num_tokens for group in answers for answer in group) == num_tokens
        words = [f"{name} {rate:.0f} tokens/s ({of_cpu:.0f} a CPU second)" for name, (rate, of_cpu) in rates.items()]
        print(f"{f'round {number}' if number else 'warm-up'}: {', '.join(words)}", flush=True)
        if number:
            for place, unit in enumerate(ratios):
                ratios[unit].append(rates["vllm"][place] / rates["local"][place])
    for unit, found in ratios.items():
        print(
            f"vllm / local, tokens a {unit}: median {statistics.median(found):.2f} of {len(found)} rounds, {min(found):.2f} to {max(found):.2f}"
        )


def compare(student: LocalPolicy, beside: VllmPolicy, prompts: list[Ids]) -> None:
    """Greedy answers of both to the same prompts: beginnings of the trajectory's histories, so that all are unlike."""
    chosen = [ids[: len(ids) - 7 * shift] for shift in range(3) for ids in prompts][:NUM_GREEDY]
    sampling = Sampling(max_new_tokens=NEW_TOKENS, stop="")
    pairs = list(zip(student.complete_ids(chosen, sampling), beside.complete_ids(chosen, sampling), strict=True))
    num_equal, gaps = 0, []
    for number, ((ours,), (theirs,)) in enumerate(pairs):
        if ours.token_ids == theirs.token_ids:
            num_equal += 1
            gaps += [abs(a - b) for a, b in zip(ours.log_probs, theirs.log_probs, strict=True)]
        else:
            print(f"prompt {number}: {parting(student, ours, theirs)}")
    print(
        f"{num_equal} of {len(pairs)} answers have the same ids, and log-probabilities within {max(gaps, default=0.0):.2g}"
    )
    if num_equal < len(pairs):
        sys.exit(1)


def parting(student: LocalPolicy, ours: Completion, theirs: Completion) -> str:
    """Where two answers part, and how likely the student finds each one's token there."""
    place = next(i for i, (a, b) in enumerate(zip(ours.token_ids, theirs.token_ids, strict=False)) if a != b)
    group = Group(
        "", (*ours.prompt_ids, *ours.token_ids[:place]), ((ours.token_ids[place],), (theirs.token_ids[place],))
    )
    (scores,) = score(student.model, [group], temperature=1.0, max_tokens=4096)
    return f"parts at token {place}, log p {scores[0][0]:.6f} (local) and {scores[1][0]:.6f} (vllm)"


if __name__ == "__main__":
    main()
