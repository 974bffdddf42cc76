"""Supervised reinforcement learning: the student answers at expert steps, and likeness to the expert's action pays.

Deng, Hsu et al., arXiv 2510.25992.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from swe_srl.dialogue import format_action, parse
from swe_srl.errors import ApparatusError, NothingToLearn, SandboxError
from swe_srl.policy.base import Completion, Sampling
from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.token_policy import TokenPolicy
from swe_srl.policy.tree import TokenTree
from swe_srl.training.algorithms.base import Batch, compared
from swe_srl.training.config import SrlConfig, TrainConfig
from swe_srl.training.data import Cursor, Example
from swe_srl.training.objective import Group, Loss, ratio_loss, token_weights
from swe_srl.training.selection import BROKEN, Sampled, Selection, fill
from swe_srl.training.step_rewards import Answered, Rewarded, step_rewards
from swe_srl.training.team import ALONE, Team


class Srl:
    """See Algorithm."""

    def __init__(
        self,
        settings: SrlConfig,
        config: TrainConfig,
        examples: Sequence[Example],
        policy: TokenPolicy,
        reference: LocalPolicy | None = None,
        team: Team = ALONE,
    ) -> None:
        """`policy` draws the answers; `reference`: the frozen student that `objective.kl_weight` holds on to; `team`: who samples, each a share."""
        self._settings = settings
        self._config = config
        self._examples = examples
        self._policy = policy
        self._reference = reference
        self._team = team
        self._rewards = step_rewards(settings.reward)
        self._failure: ApparatusError | None = None
        self._left_over: list[Group] = []
        self.temperature = settings.temperature

    def collect(self, cursor: Cursor, update: int) -> Batch:
        """Sample, reward and select until the batch is full. Raises NothingToLearn when no group at all is worth keeping, SandboxError when that is the boxes' doing."""
        settings = self._settings

        def sample(count: int, round_: int) -> list[Sampled]:
            return self._sample([self._examples[index] for index in cursor.take(count)], update, round_)

        min_std = settings.min_reward_std if settings.dynamic_sampling else None
        selection = fill(
            settings.batch_size, self._left_over, sample, min_std=min_std, max_rounds=settings.max_rounds,
            keep_old=settings.objective.old_log_probs == "sampler", divide_by_std=settings.objective.divide_by_std,
            own=self._policy.is_student,
        )  # fmt: skip
        self._left_over = selection.left_over
        if not selection.groups:
            if set(selection.thrown) == {BROKEN}:
                raise SandboxError(
                    f"at none of {len(selection.sampled)} steps sampled for update {update} could the answers be tried: {self._failure}; "
                    "see `swe-srl doctor`, then call the same command again"
                )
            thrown = ", ".join(f"{count} {reason}" for reason, count in selection.thrown.items())
            raise NothingToLearn(
                f"update {update}: none of {len(selection.sampled)} sampled groups has differing rewards ({thrown}): warm the student up with SFT first, "
                "raise max_new_tokens or the temperature, or lower min_reward_std",
                TokenTree(selection.sampled).num_tokens,
            )
        weights = token_weights(selection.groups, settings.objective.normalise, self._config.max_new_tokens)
        scored = compared(
            selection.groups, self._reference, temperature=self.temperature,
            max_tokens=self._config.micro_batch_tokens, team=self._team,
        )  # fmt: skip
        metrics = _metrics(selection, settings.batch_size)
        return Batch(scored, weights, metrics, TokenTree(selection.sampled).num_tokens)

    def _sample(self, examples: Sequence[Example], update: int, round_: int) -> list[Sampled]:
        settings, config = self._settings, self._config
        key = hashlib.sha256(f"{config.seed}/{update}/{round_}".encode()).digest()
        sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=config.max_new_tokens,
            seed=int.from_bytes(key[:6], "little"),
        )
        prompts = [
            self._policy.prompt(example.messages(config.context), max_new_tokens=config.max_new_tokens).ids
            for example in examples
        ]

        def answer(own: list[int]) -> list[tuple[list[Completion], Rewarded]]:
            answers = self._policy.complete_ids([prompts[i] for i in own], sampling, num_samples=settings.group_size)
            texts = [
                Answered(examples[i], tuple(one.text for one in group)) for i, group in zip(own, answers, strict=True)
            ]
            return list(zip(answers, self._rewards(texts), strict=True))

        made = self._team.spread(prompts, answer)
        self._failure = next((rewarded.failure for _, rewarded in made if rewarded.failure), self._failure)
        return [
            Sampled(
                example.step.step_id,
                prompt,
                tuple(answer.token_ids for answer in answers),
                tuple(answer.log_probs for answer in answers),
                rewarded.rewards,
                tuple(_action(answer.text) for answer in answers),
            )
            for example, prompt, (answers, rewarded) in zip(examples, prompts, made, strict=True)
        ]

    def loss(self, log_probs: Tensor, groups: list[Group], weights: Tensor) -> Loss:
        """The clipped policy gradient. Fresh groups are their own old policy: their ratio is 1."""
        return ratio_loss(log_probs, groups, weights, self._settings.objective)

    def state(self) -> list[Group]:
        """Kept groups that did not fit into the last batch."""
        return self._left_over

    def restore(self, state: list[Group]) -> None:
        """See Algorithm."""
        self._left_over = list(state)


def _action(text: str) -> str:
    command = parse(text).command
    return format_action(command) if command else ""


def _metrics(selection: Selection, batch_size: int) -> dict[str, float | int | dict[str, int]]:
    rewards = [reward for group in selection.sampled for reward in group.rewards]
    lengths = [len(completion) for group in selection.sampled for completion in group.completions]
    actions = [action for group in selection.sampled if group.rewards for action in group.actions if action]
    kept = len(selection.groups)
    metrics: dict[str, float | int | dict[str, int]] = {
        "groups_kept": kept, "groups_missing": batch_size - kept, "groups_left_over": len(selection.left_over), "groups_thrown": selection.thrown,
        "rounds": selection.num_rounds,
    }  # fmt: skip
    if rewards:
        well_formed = [reward.value for reward in rewards if reward.parts.get("well_formed", 1.0)]
        metrics["reward_mean"] = statistics.fmean(reward.value for reward in rewards)
        metrics["reward_std"] = statistics.fmean(
            statistics.pstdev([reward.value for reward in group.rewards])
            for group in selection.sampled
            if group.rewards
        )
        metrics["well_formed"] = len(well_formed) / len(rewards)
        metrics["reward_mean_well_formed"] = statistics.fmean(well_formed) if well_formed else 0.0
        metrics["commonest_action"] = max(Counter(actions).values(), default=0) / len(rewards)
        metrics["completion_tokens_mean"] = statistics.fmean(lengths)
    return metrics
