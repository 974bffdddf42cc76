"""Tokens → money, under a cap that holds: the worst case of a call is set aside before the call is made."""

from __future__ import annotations

import threading
from typing import NamedTuple

from pydantic import Field

from swe_srl.schema import Usage
from swe_srl.settings import Config


class BudgetConfig(Config):
    """What a run may cost, failed and unparsable calls included."""

    max_usd: float | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=0)
    """Prompt and completion tokens together."""
    price_in: float = Field(0.0, ge=0)
    """USD per million prompt tokens."""
    price_out: float = Field(0.0, ge=0)
    """USD per million completion tokens."""

    def price(self, prompt_tokens: int, completion_tokens: int) -> Usage:
        """Tokens with what they cost."""
        cost_usd = (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6
        return Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, cost_usd=cost_usd)


class BudgetReached(Exception):
    """The next call could exceed the cap, so it is not made."""


class Total(NamedTuple):
    """A sum of usages."""

    tokens: int = 0
    usd: float = 0.0


class Account:
    """What has been spent and what is set aside for calls under way. Safe to share between threads."""

    def __init__(self, config: BudgetConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._spent = Usage()
        self._reserved = Total()

    @property
    def spent(self) -> Usage:
        """Everything charged so far."""
        return self._spent

    def charge(self, usage: Usage) -> None:
        """Count what a call cost."""
        with self._lock:
            self._spent = Usage(
                prompt_tokens=self._spent.prompt_tokens + usage.prompt_tokens,
                completion_tokens=self._spent.completion_tokens + usage.completion_tokens,
                cost_usd=self._spent.cost_usd + usage.cost_usd,
            )

    def reserve(self, prompt_tokens: int, max_completion_tokens: int) -> Usage:
        """Set aside the worst case of a call; give it back with `release`. Raises BudgetReached where it does not fit."""
        worst = self.config.price(prompt_tokens, max_completion_tokens)
        with self._lock:
            tokens = self._spent.prompt_tokens + self._spent.completion_tokens + self._reserved.tokens
            tokens += prompt_tokens + max_completion_tokens
            usd = self._spent.cost_usd + self._reserved.usd + worst.cost_usd
            if self.config.max_tokens is not None and tokens > self.config.max_tokens:
                raise BudgetReached
            if self.config.max_usd is not None and usd > self.config.max_usd:
                raise BudgetReached
            self._reserved = Total(
                self._reserved.tokens + prompt_tokens + max_completion_tokens, self._reserved.usd + worst.cost_usd
            )
        return worst

    def release(self, reservation: Usage) -> None:
        """Give back what was set aside."""
        with self._lock:
            self._reserved = Total(
                self._reserved.tokens - reservation.prompt_tokens - reservation.completion_tokens,
                self._reserved.usd - reservation.cost_usd,
            )
