"""--price-in, --price-out and --prices → what a model's tokens cost, and whether a cap in money would hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from swe_srl.policy.prices import Price


def price_to_count(
    model: str,
    file: Path | None,
    price_in: float | None,
    price_out: float | None,
    price_cached_in: float | None = None,
) -> Price:
    """What a model's tokens cost: what the user said, in USD per million, over what a table says of its name.

    Raises ConfigError for a file of prices that cannot be read.
    """
    from swe_srl.policy.prices import Price, price_of

    said = {"input": price_in, "cached_input": price_cached_in, "output": price_out}
    given = {name: value for name, value in said.items() if value is not None}
    known = price_of(model, file) or Price()
    if price_in is not None:  # what is given for input holds for all of it
        known = Price(output=known.output)
    return known.model_copy(update=given)


def check_caps(caps: dict[str, float | None], price: Price, model: str) -> None:
    """Refuse caps in USD, by the names users know them by, that nothing would be counted against. Raises ConfigError."""
    from swe_srl.errors import ConfigError

    capped = [name for name, value in caps.items() if value is not None]
    if capped and price.is_free:
        raise ConfigError(
            f"no price is known of {model!r}, so {' and '.join(capped)} would not hold: give --price-in and --price-out "
            "(USD per million tokens), or --prices with a file of them, or cap tokens instead"
        )
