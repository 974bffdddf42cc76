"""What a frozen reference did at each step → the steps worth training on, each with how easy it was."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from swe_srl.errors import UserError
from swe_srl.schema import STEP_AGREEMENT, StepAgreement
from swe_srl.store import read_records
from swe_srl.training.config import DifficultyConfig
from swe_srl.training.data import Dataset, Example


def choose(data: Dataset, config: DifficultyConfig | None) -> Dataset:
    """The examples that `config` lets through; all of them without it.

    Raises UserError when the reference was not measured at a step, or when nothing is left.
    """
    if config is None:
        return data
    path = Path(config.measured) / STEP_AGREEMENT
    if not path.is_file():
        raise UserError(
            f"difficulty.measured: no {STEP_AGREEMENT} in {config.measured}: measure the reference with `swe-srl agree STEPS --policy … --out {config.measured}`"
        )
    measured = {row.step_id: row for row in read_records(path, StepAgreement)}
    kept: list[Example] = []
    left_out: Counter[str] = Counter(data.left_out)
    for example in data.examples:
        row = measured.get(example.step.step_id)
        if row is None:
            raise UserError(
                f"{path} lacks step {example.step.step_id!r}: measure all steps that are trained on (`swe-srl agree` without --limit)"
            )
        reason = _reason_to_leave_out(row, config)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(example._replace(ease=row.similarity))
    if not kept:
        raise UserError(
            f"difficulty: none of {len(data.examples)} steps passes min_std {config.min_std} and max_mean {config.max_mean}: loosen one of them"
        )
    return Dataset(tuple(kept), data.num_steps, dict(left_out))


def _reason_to_leave_out(row: StepAgreement, config: DifficultyConfig) -> str:
    if config.min_std is not None and row.similarity_std <= config.min_std:
        return "alike under the reference"
    if config.max_mean is not None and row.similarity >= config.max_mean:
        return "easy for the reference"
    return ""
