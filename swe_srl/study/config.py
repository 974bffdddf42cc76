"""What a study is told: the arms, what they share, and how all of them are measured."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from swe_srl.evaluation.steps import AgreementConfig
from swe_srl.settings import Config


class SolveConfig(Config):
    """Tasks that each model is let loose on in boxes."""

    preset: str = ""
    """Preset or file of the agent mode; its defaults where empty."""
    of: Literal["held-out", "training"] = "held-out"
    """Which tasks: for a student too small for new ones, those it was trained on tell at least whether RLVR does what it should."""
    tasks: int = Field(ge=1)
    """How many of them, the first ones."""
    attempts: int = Field(1, ge=1)
    """At each task, with each seed."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Over the preset's."""
    workers: int = Field(2, ge=1)
    """Boxes at once while patches are graded."""


class StudyConfig(Config):
    """Arms x seeds: each cell is a student, trained as its arm says, and measured."""

    student: str
    """Whom all arms begin with."""
    steps: tuple[str, ...] = ()
    """JSONL files of steps to train on; the same for all arms."""
    tasks: str = ""
    """The tasks of those steps; RLVR works on them."""
    heldout_steps: str = ""
    """Steps of other projects, at which agreement with the teacher is measured."""
    heldout_tasks: str = ""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Each arm is trained and measured once with each."""
    budget_tokens: int | None = Field(None, ge=1)
    """Tokens that may go through the model in all stages of a cell together, trained and sampled."""
    stages: dict[str, dict[str, Any]]
    """Name → a training: `preset` (a preset's name, or a file), `share` of the budget, and settings over the preset."""
    arms: dict[str, tuple[str | dict[str, Any], ...]] = Field(min_length=1)
    """Name → its stages in order: a stage's name, or a table with the name as `stage` and settings over it. Arms that
    begin with the same stages share them: they are trained once for each seed."""
    control: str
    """The arm with which every other one is compared."""
    controls: dict[str, str] = Field(default_factory=dict)
    """Arm → the arm with which it is compared beside that."""
    agreement: AgreementConfig = AgreementConfig()
    """How answers are drawn at the held-out steps. The seed is the cell's, and a trained model sees what it was trained to
    see: the context given here is the untrained student's."""
    reward: str = "similarity"
    """What similarity is."""
    also: tuple[str, ...] = ()
    """Rewards by which the same answers are valued too."""
    solve: SolveConfig | None = None
    """No tasks are solved where null."""

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for arm, stages in self.arms.items():
            for stage in stages:
                name = stage if isinstance(stage, str) else stage.get("stage")
                if name not in self.stages:
                    raise ValueError(f"arm {arm!r} has a stage {name!r}, which is none of {', '.join(self.stages)}")
        for arm in (self.control, *self.controls, *self.controls.values()):
            if arm not in self.arms:
                raise ValueError(f"{arm!r} is compared, but is none of the arms {', '.join(self.arms)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in `seeds`")
        return self
