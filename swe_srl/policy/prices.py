"""A model's name → what its tokens cost, from a table that comes along, dated, or from the user's own."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from swe_srl.errors import ConfigError
from swe_srl.schema import Usage
from swe_srl.settings import Config, build

BUNDLED = Path(__file__).parent / "prices.toml"

_SNAPSHOT = re.compile(r"-(?:\d{8}|\d{4}-\d\d-\d\d)$")
"""The date that ends the name of a snapshot: gpt-5-2025-08-07, claude-haiku-4-5-20251001."""


class Tokens(NamedTuple):
    """What one call used."""

    prompt: int
    completion: int
    cached: int = 0
    """Of the prompt, read from the endpoint's cache."""
    cache_write: int = 0
    """Of the prompt, written to it."""


class Rates(Config):
    """USD per million tokens."""

    input: float = Field(0.0, ge=0)
    cached_input: float | None = Field(None, ge=0)
    """As `input` where not given."""
    cache_write: float | None = Field(None, ge=0)
    """As `input` where not given."""
    output: float = Field(0.0, ge=0)

    def usd(self, tokens: Tokens) -> float:
        """What a call costs."""
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        plain = max(0, tokens.prompt - tokens.cached - tokens.cache_write)
        in_usd = plain * self.input + tokens.cached * cached + tokens.cache_write * written
        return (in_usd + tokens.completion * self.output) / 1e6


class LongPromptRates(Rates):
    """What a call costs whose prompt is long."""

    above: int = Field(ge=1)
    """Prompt tokens from which on, exclusive, these rates hold."""


class Price(Rates):
    """What the tokens of one model cost."""

    long: LongPromptRates | None = None

    @property
    def is_free(self) -> bool:
        """Nothing would ever be counted."""
        return not self.input and not self.output

    def cost(self, tokens: Tokens) -> Usage:
        """Tokens with what they cost."""
        return Usage(
            prompt_tokens=tokens.prompt,
            completion_tokens=tokens.completion,
            cached_tokens=tokens.cached,
            cost_usd=self.rates(tokens).usd(tokens),
        )

    def rates(self, tokens: Tokens) -> Rates:
        """The rates that hold for a call."""
        return self.long if self.long and tokens.prompt > self.long.above else self

    def worst(self, prompt_tokens: int, completion_tokens: int) -> Usage:
        """The most that a call of at most so many tokens can cost: nothing is cached, all is written to the cache."""
        plain = self.cost(Tokens(prompt_tokens, completion_tokens))
        written = self.cost(Tokens(prompt_tokens, completion_tokens, cache_write=prompt_tokens))
        return max(plain, written, key=lambda usage: usage.cost_usd)


class PriceTable(Config):
    """What a file of prices holds."""

    table: dict[str, str] = Field(default_factory=dict)
    """When and where the prices were read."""
    models: dict[str, Price]


def price_of(model: str, file: Path | None = None) -> Price | None:
    """The price of a model by its name, the user's file before the table that comes along; None where neither knows it.

    Raises ConfigError for a file that cannot be read or holds something else.
    """
    for path in (file, BUNDLED):
        if path is None:
            continue
        models = read_prices(path).models
        for name in (model, _SNAPSHOT.sub("", model)):
            if name in models:
                return models[name]
    return None


def read_prices(path: Path) -> PriceTable:
    """The prices in a TOML or JSON file: `models.NAME = {input, cached_input, output}`, in USD per million tokens."""
    return build(PriceTable, _read(path), origin=str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}: give a TOML or JSON file of prices") from error
    except ValueError as error:
        raise ConfigError(f"{path} is neither TOML nor JSON as its name says: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no table: write `models.NAME = {{input = 1.0, output = 2.0}}`")
    return value
