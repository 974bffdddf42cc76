"""`swe-srl reward`: pairs of actions → rewards, one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reward(
    pairs: Annotated[Path, typer.Argument(help='JSONL with {"student": …, "expert": …} on each line.')],
    reward: Annotated[str, typer.Option(help="Name of the reward.")] = "similarity",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the reward, e.g. autojunk=true.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; standard output where it is not given.")] = None,
) -> None:
    """Pairs of actions → rewards; needs neither torch nor docker.

    Where the expert's text is one action, with or without thinking before it, the student's is parsed and compared
    action by action; any other text is compared as it stands.
    """
    import json
    import sys

    from swe_srl.rewards import reward_config
    from swe_srl.rewards.pairs import read_pairs, score
    from swe_srl.settings import apply_overrides, build
    from swe_srl.store import write_text

    default = reward_config(reward)
    config = build(type(default), apply_overrides(default.model_dump(), set_ or []), origin=f"reward {reward!r}")
    lines = (json.dumps(score(pair, config).model_dump(exclude_defaults=True)) + "\n" for pair in read_pairs(pairs))
    if out is None:
        sys.stdout.writelines(lines)
    else:
        write_text(out, "".join(lines))
