"""Tokens → money, under a cap that holds: the worst case of a call is set aside before the call is made."""

from __future__ import annotations

import threading
from collections import defaultdict

from pydantic import Field

from swe_srl.policy.prices import Price
from swe_srl.schema import Usage
from swe_srl.settings import Config

NOTHING = Usage()


class BudgetConfig(Config):
    """What a run may cost, failed and unparsable calls included."""

    max_usd: float | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=0)
    """Prompt and completion tokens together."""
    max_usd_per_task: float | None = Field(None, ge=0)
    """Of all samples of one task."""
    max_tokens_per_task: int | None = Field(None, ge=0)
    price: Price = Price()


class BudgetReached(Exception):
    """The next call could exceed the cap, so it is not made."""


class TaskBudgetReached(Exception):
    """The next call could exceed the cap of its task, so it is not made."""


class _Purse:
    """What was spent, what is set aside, and how much of both there may be."""

    def __init__(self, max_usd: float | None, max_tokens: int | None) -> None:
        self.spent = NOTHING
        self.reserved_usd = 0.0
        self.reserved_tokens = 0
        self._max_usd = max_usd
        self._max_tokens = max_tokens

    def holds(self, worst: Usage, *, beside_reserved: bool) -> bool:
        """Whether there is room for a call, beside those under way or once they have cost nothing."""
        usd = self.spent.cost_usd + worst.cost_usd + (self.reserved_usd if beside_reserved else 0.0)
        tokens = _tokens(self.spent) + _tokens(worst) + (self.reserved_tokens if beside_reserved else 0)
        return not (
            (self._max_usd is not None and usd > self._max_usd)
            or (self._max_tokens is not None and tokens > self._max_tokens)
        )

    def set_aside(self, worst: Usage, sign: int = 1) -> None:
        """Set the worst case aside, or with the sign turned give it back."""
        self.reserved_usd += sign * worst.cost_usd
        self.reserved_tokens += sign * _tokens(worst)


class Account:
    """What has been spent and what is set aside for calls under way, in all and per task. Safe to share between threads.

    The cap holds as long as the endpoint keeps to the limit on an answer's length and its prices are those given.
    """

    def __init__(self, config: BudgetConfig) -> None:
        self.config = config
        self._changed = threading.Condition()
        self._total = _Purse(config.max_usd, config.max_tokens)
        self._of_task: dict[str, _Purse] = defaultdict(
            lambda: _Purse(config.max_usd_per_task, config.max_tokens_per_task)
        )

    @property
    def spent(self) -> Usage:
        """Everything charged so far."""
        return self._total.spent

    def charge(self, task_id: str, usage: Usage) -> None:
        """Count what a call has cost."""
        self.settle(task_id, NOTHING, usage)

    def reserve(self, task_id: str, worst: Usage) -> None:
        """Set aside the worst case of a call; `settle` gives it back.

        Waits where calls under way may leave room. Raises BudgetReached or TaskBudgetReached where there will be none.
        """
        with self._changed:
            total, task = self._total, self._of_task[task_id]
            while True:
                if not total.holds(worst, beside_reserved=False):
                    raise BudgetReached
                if not task.holds(worst, beside_reserved=False):
                    raise TaskBudgetReached
                if total.holds(worst, beside_reserved=True) and task.holds(worst, beside_reserved=True):
                    break
                self._changed.wait()
            for purse in (total, task):
                purse.set_aside(worst)

    def settle(self, task_id: str, reserved: Usage, usage: Usage) -> None:
        """Give back what was set aside for a call, and charge what it cost."""
        with self._changed:
            for purse in (self._total, self._of_task[task_id]):
                purse.set_aside(reserved, sign=-1)
                purse.spent += usage
            self._changed.notify_all()


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
