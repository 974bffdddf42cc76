"""The mode `agent`: the model acts in a box, turn by turn, until it submits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from swe_srl.agent import AgentLimits, EpisodeResult
from swe_srl.dialogue import ContextConfig
from swe_srl.episodes import run_episodes
from swe_srl.evaluation.base import Attempt, Bench, Result
from swe_srl.policy.base import Sampling
from swe_srl.runtime.base import SandboxConfig
from swe_srl.schema import Trajectory
from swe_srl.settings import Config


class AgentModeConfig(Config):
    """The model acts in a box, turn by turn, until it submits."""

    type: Literal["agent"] = "agent"
    context: ContextConfig = ContextConfig()
    limits: AgentLimits = AgentLimits()
    sampling: Sampling = Sampling()
    sandbox: SandboxConfig = SandboxConfig()
    max_parallel: int = Field(8, ge=1)
    """Episodes at the same time; each round asks the model for all their next actions at once."""
    overlap: bool = False
    """Ask as soon as half of the episodes can be asked, while the commands of the others run: for slow commands, or an endpoint."""

    def build(self) -> AgentMode:
        """The mode of these settings."""
        return AgentMode(self)


class AgentMode:
    """See Mode."""

    needs_gold_files = False

    def __init__(self, config: AgentModeConfig) -> None:
        self.max_rounds = config.limits.max_turns
        self._config = config

    def run(self, attempts: Sequence[Attempt], bench: Bench) -> Iterator[Result]:
        """See Mode."""
        config = self._config
        episodes = run_episodes(
            bench.policy,
            [attempt.task for attempt in attempts],
            bench.open_box,
            config.sampling,
            seeds=[attempt.seed(config.sampling.seed) for attempt in attempts],
            context=config.context,
            limits=config.limits,
            max_parallel=config.max_parallel,
            overlap=config.overlap,
            on_turn=bench.on_answer,
        )
        for episode in episodes:
            yield _result(attempts[episode.number], episode, bench.model)


def _result(attempt: Attempt, episode: EpisodeResult, model: str) -> Result:
    prediction = episode.prediction(model).model_copy(
        update={
            "attempt": attempt.number,
            "mode": "agent",
            "answer_tokens": tuple(completion.num_tokens for completion in episode.completions),
        }
    )
    trajectory = Trajectory(
        trajectory_id=attempt.trajectory_id,
        task_id=prediction.task_id,
        model=model,
        source="swe-srl",
        turns=episode.turns,
        exit_status=episode.exit_status or "infra_failure",
        patch=episode.patch,
        usage=episode.usage,
    )
    return Result(prediction, trajectory, len(episode.turns))
