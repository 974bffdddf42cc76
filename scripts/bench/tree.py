"""One SRL update, sampling and training, three ways in one run: the token tree, plain sequences, and TRL's GRPOTrainer.

    pip install trl
    python scripts/bench/tree.py [--model random|smollm2-135m|DIR] [--updates 3] [--dtype bf16]

All three have the same weights, the same prompts (the history of a trajectory of 20 steps, 100 to 2,000 tokens, real
source text), 8 answers of 60 tokens each, the same reward, clipped objective and AdamW. Plain sequences are this
package's trainer with one sequence in each pass and transformers' own `generate`. TRL is given no reference model, no
gradient checkpointing and no padding to speak of (one prompt with its answers at a time), or with --trl-prompts more
prompts at once. Tokens are counted where the model looks up its embeddings, padding included.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import itertools
import json
import os
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from swe_srl.policy.load import load_student, require_torch

os.environ.setdefault("OMP_WAIT_POLICY", "ACTIVE")  # as without this package: nothing else is to run beside
require_torch()

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_callback import TrainerCallback

from swe_srl.policy.base import Sampling
from swe_srl.policy.embedded import EMBEDDED, embedded_directory
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tree import TokenTree, micro_batches
from swe_srl.rewards.similarity import similarity
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.config import ObjectiveConfig, OptimizerConfig
from swe_srl.training.objective import Group, group_advantages, per_token, policy_gradient, token_weights
from swe_srl.training.optimizer import MasterOptimizer

if TYPE_CHECKING:
    from swe_srl.policy.local import LocalPolicy

NUM_STEPS = 20
TOKENS_PER_STEP = 100
GROUP_SIZE = 8
NEW_TOKENS = 60
MICRO_BATCH_TOKENS = 16_384

Ids = tuple[int, ...]
Sample = Callable[["LocalPolicy", list[Ids], int], list[tuple[Ids, ...]]]
Parts = Callable[[list[Group], list[Tensor]], Iterator[tuple[list[Group], Tensor]]]


class Work(NamedTuple):
    """What one update is made from."""

    model: Path
    dtype: Literal["bf16", "fp32"]
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    """What the answer to each prompt is compared with."""


class Measured(NamedTuple):
    """One update."""

    seconds: float
    sampling_s: float
    num_tokens: int
    """Through the model, sampling and training."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random", help="random: a Qwen2 of 3M parameters")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--ways", default="tree,plain,trl")
    parser.add_argument("--trl-prompts", type=int, default=1, help="prompts that TRL takes through the model at once")
    parser.add_argument("--out", type=Path, help="append the figures to this JSONL file")
    options = parser.parse_args()
    ways: dict[str, Callable[[Work], Iterator[Measured]]] = {
        "tree": by_tree, "plain": by_plain_sequences, "trl": lambda work: by_trl(work, options.trl_prompts),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        work = make_work(options.model, options.dtype, Path(scratch))
        runs = {name: ways[name](work) for name in options.ways.split(",")}
        for number in range(options.updates + 1):
            results = {name: next(run) for name, run in runs.items()}
            print(line(number, results), flush=True)
            if options.out:
                figures = {name: result._asdict() for name, result in results.items()}
                row = {"model": options.model, "dtype": options.dtype, "update": number, **figures}
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def line(number: int, results: dict[str, Measured]) -> str:
    """One update of each, beside the first."""
    first = next(iter(results.values()))
    words = [
        f"{name} {result.seconds:.1f} s ({result.sampling_s:.1f} sampling), {result.num_tokens} tokens"
        + ("" if result is first else f" ({result.seconds / first.seconds:.1f} x, {result.num_tokens / first.num_tokens:.1f} x)")
        for name, result in results.items()
    ]  # fmt: skip
    return (f"update {number}: " if number else "warm-up: ") + "; ".join(words)


def make_work(model: str, dtype: Literal["bf16", "fp32"], scratch: Path) -> Work:
    """The model's directory and a trajectory's prompts, each the beginning of the next."""
    if model == "random":
        path = tiny_student(scratch / "random", width=256, layers=4, vocabulary=2048)
    else:
        path = embedded_directory() if model == EMBEDDED else Path(model)
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
    return Work(path, dtype, tuple(prompts), tuple(targets))


class Counter:
    """Counts the tokens that go through a model."""

    def __init__(self, model: object) -> None:
        self.total = 0
        model.get_input_embeddings().register_forward_pre_hook(self._count)  # type: ignore[attr-defined]

    def _count(self, _module: object, inputs: tuple) -> None:  # type: ignore[type-arg]
        self.total += inputs[0].numel()


def by_tree(work: Work) -> Iterator[Measured]:
    """This package: one tree to sample from and to train on."""
    yield from our_updates(work, sample_tree, parts_of_tree)


def by_plain_sequences(work: Work) -> Iterator[Measured]:
    """The same trainer, every prompt read again for each of its answers."""
    yield from our_updates(work, sample_plain, parts_plain)


def sample_tree(policy: LocalPolicy, prompts: list[Ids], seed: int) -> list[tuple[Ids, ...]]:
    """All answers side by side, over one copy of the history."""
    sampling = Sampling(temperature=1.0, max_new_tokens=NEW_TOKENS, stop="", seed=seed)
    policy._eos = set()  # noqa: SLF001 - every answer is to be of the full length
    answers = policy.complete_ids(prompts, sampling, num_samples=GROUP_SIZE)
    return [tuple(answer.token_ids for answer in group) for group in answers]


def sample_plain(policy: LocalPolicy, prompts: list[Ids], seed: int) -> list[tuple[Ids, ...]]:
    """Prompt by prompt by transformers' generate."""
    torch.manual_seed(seed)
    groups = []
    for ids in prompts:
        rows = torch.tensor([ids] * GROUP_SIZE)
        written = policy.model.generate(
            rows, attention_mask=torch.ones_like(rows), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, pad_token_id=0,
        )  # fmt: skip
        groups.append(tuple(map(tuple, written[:, len(ids) :].tolist())))
    return groups


def parts_of_tree(groups: list[Group], weights: list[Tensor]) -> Iterator[tuple[list[Group], Tensor]]:
    """What goes through the model in one pass: as many groups as fit into MICRO_BATCH_TOKENS."""
    for indices in micro_batches(groups, MICRO_BATCH_TOKENS):
        yield [groups[index] for index in indices], torch.cat([weights[index] for index in indices])


def parts_plain(groups: list[Group], weights: list[Tensor]) -> Iterator[tuple[list[Group], Tensor]]:
    """Each answer with a prompt of its own."""
    for group, of_group in zip(groups, weights, strict=True):
        for completion, advantage, weight in zip(
            group.completions, group.advantages, of_group.split(NEW_TOKENS), strict=True
        ):
            yield [Group("", group.prompt_ids, (completion,), (advantage,))], weight


def our_updates(work: Work, sample: Sample, parts: Parts) -> Iterator[Measured]:
    """Update after update by this package's policy, objective and optimizer."""
    policy = load_student(str(work.model), dtype=work.dtype, device="cpu")
    counter = Counter(policy.model)
    optimizer = MasterOptimizer(policy.model, OptimizerConfig(lr=1e-6, schedule="constant"))
    prompts = [tuple(policy.codec.tokenizer(prompt).input_ids) for prompt in work.prompts]
    for seed in itertools.count():
        begun, counter.total = time.perf_counter(), 0
        policy.model.eval()
        answers = sample(policy, prompts, seed)
        sampled = time.perf_counter()
        groups = [
            Group("", ids, completions, group_advantages([similarity(policy.codec.decode(c), target) for c in completions]))
            for ids, completions, target in zip(prompts, answers, work.targets, strict=True)
        ]  # fmt: skip
        policy.model.train()
        for part, weights in parts(groups, token_weights(groups, "sequence", NEW_TOKENS)):
            log_probs = token_log_probs(policy.model, TokenTree(part).row())
            advantages = torch.cat([per_token(group) for group in part])
            policy_gradient(log_probs, log_probs.detach(), advantages, weights, ObjectiveConfig()).value.backward()  # type: ignore[no-untyped-call]
            optimizer.accumulate()
        optimizer.step(1e-6)
        policy.forget()
        yield Measured(time.perf_counter() - begun, sampled - begun, counter.total)


def by_trl(work: Work, num_prompts: int) -> Iterator[Measured]:
    """TRL, one update in each call of its trainer."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[work.dtype]
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=dtype)
    model.generation_config.eos_token_id = None
    counter = Counter(model)
    sampling = [0.0]

    def reward(completions: list[str], target: list[str], **_: object) -> list[float]:
        return [similarity(text, wanted) for text, wanted in zip(completions, target, strict=True)]

    class Timed(GRPOTrainer):
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            answer = super()._generate_single_turn(*args, **kwargs)
            sampling[0] += time.perf_counter() - begun
            return answer

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            self.seconds = time.perf_counter() - self.begun

    rows = [{"prompt": prompt, "target": target} for prompt, target in zip(work.prompts, work.targets, strict=True)]
    with tempfile.TemporaryDirectory() as out:
        for seed in itertools.count():
            settings = GRPOConfig(
                output_dir=out, seed=seed, use_cpu=True, bf16=False, per_device_train_batch_size=GROUP_SIZE * num_prompts,
                gradient_accumulation_steps=NUM_STEPS // num_prompts, steps_per_generation=1, num_generations=GROUP_SIZE,
                max_completion_length=NEW_TOKENS, generation_kwargs={"min_new_tokens": NEW_TOKENS}, temperature=1.0, top_k=0, beta=0.0,
                loss_type="grpo", learning_rate=1e-6, lr_scheduler_type="constant", max_steps=1, shuffle_dataset=False,
                gradient_checkpointing=False, logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
            )  # fmt: skip
            clock = Clock()
            trainer = Timed(
                model=model, reward_funcs=reward, args=settings, train_dataset=Dataset.from_list(rows),
                processing_class=AutoTokenizer.from_pretrained(work.model), callbacks=[clock],
            )  # fmt: skip
            counter.total, sampling[0] = 0, 0.0
            with contextlib.redirect_stdout(None):
                trainer.train()
            yield Measured(clock.seconds, sampling[0], counter.total)


if __name__ == "__main__":
    main()
