"""Options that several verbs share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from swe_srl.fanout import Executor

Tasks = Annotated[
    Path,
    typer.Option(
        help="Task repository, rows (JSONL, JSON, parquet, a Hugging Face id) whose images exist, or Harbor tasks.",
        show_default=False,
    ),
]
Out = Annotated[
    Path, typer.Option(help="Run directory; the same one continues a run that was stopped.", show_default=False)
]
Policy = Annotated[
    str,
    typer.Option(
        help="Model id, directory, training run, or URL of an OpenAI-compatible endpoint.", show_default=False
    ),
]
EndpointModel = Annotated[
    str, typer.Option(help="Name of the model at the endpoint; needed where --policy is a URL.", show_default=False)
]
ModelName = Annotated[
    str, typer.Option(help="Name of the model in files and reports; the policy's own by default.", show_default=False)
]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only this task; may be given again.", show_default=False)]
MaxTasks = Annotated[int | None, typer.Option(min=1, help="Only the first so many tasks.", show_default=False)]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, as a.b=value; may be given again.", show_default=False)
]
Boxes = Annotated[
    list[str] | None,
    typer.Option(
        "--box",
        help="How boxes are made, as type=bubblewrap, archives=DIR, profile=heavy or limits.memory_mib=4096; may be given again.",
        show_default=False,
    ),
]
PriceIn = Annotated[
    float | None,
    typer.Option(min=0, help="USD per million prompt tokens of an endpoint; else from a table.", show_default=False),
]
PriceOut = Annotated[float | None, typer.Option(min=0, help="USD per million completion tokens.", show_default=False)]
Prices = Annotated[
    Path | None,
    typer.Option(
        help="TOML or JSON file of prices, looked into before the table that comes along.", show_default=False
    ),
]
ExecutorName = Annotated[
    Literal["threads", "ray"],
    typer.Option(help="Where boxes are: on this machine, or on those of a Ray cluster; see docs/cluster.md."),
]
Address = Annotated[
    str,
    typer.Option(
        help="host:port of the head of the Ray cluster; RAY_ADDRESS, or a head on this machine, by default.",
        show_default=False,
    ),
]


def executor_of(name: Literal["threads", "ray"], address: str) -> Executor:
    """The executor that --executor and --address name. Raises UserError."""
    from swe_srl.errors import UserError
    from swe_srl.fanout import THREADS

    if name == "threads":
        if address:
            raise UserError(f"--address {address} is of a Ray cluster: add --executor ray, or leave it out")
        return THREADS
    from swe_srl.runtime.cluster import RayCluster

    return RayCluster(address)
