"""What the user wrote after `--policy` → a Policy: an endpoint's URL, a model's name, a directory, or a training run."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from swe_srl.errors import ConfigError, EndpointError
from swe_srl.policy.base import Policy
from swe_srl.policy.embedded import EMBEDDED, embedded_directory
from swe_srl.policy.prices import Price
from swe_srl.policy.process import settle

if TYPE_CHECKING:
    from swe_srl.policy.local import LocalPolicy

Dtype = Literal["auto", "bf16", "fp32"]

CHECKPOINTS = "checkpoints"
"""Folder of a training run that holds one directory for each checkpoint."""


STAGE = "[1-9]-*"
"""Folder of a chain of trainings that holds the run of one stage, as `1-sft`."""


def load_policy(
    spec: str,
    *,
    model: str = "",
    price: Price | None = None,
    max_prompt_tokens: int | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
) -> Policy:
    """The policy that `spec` names.

    - `http(s)://…`: an OpenAI-compatible endpoint; `model` is the name it is asked for, `price` what it charges.
    - a directory with a Hugging Face model, or a run of `swe-srl train`, whose last checkpoint is meant;
    - `smollm2-135m`: the embedded student;
    - anything else: an id on the Hugging Face hub.

    Raises ConfigError for a directory without a model, EndpointError when the hub cannot be reached.
    """
    if re.match(r"https?://", spec):
        from swe_srl.policy.endpoint import EndpointConfig

        if not model:
            raise ConfigError(f"{spec} is an endpoint: say which of its models with --model")
        return EndpointConfig(base_url=spec, model=model, price=price or Price()).build()
    return load_student(spec, max_prompt_tokens=max_prompt_tokens, dtype=dtype, device=device)


def load_student(
    spec: str, *, max_prompt_tokens: int | None = None, dtype: Dtype = "auto", device: str = "auto"
) -> LocalPolicy:
    """As `load_policy`, of a model that is to run in this process."""
    require_torch()
    import torch

    from swe_srl.policy.local import load_local

    dtypes = {"auto": torch.bfloat16, "bf16": torch.bfloat16, "fp32": torch.float32}
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    directory = _directory(spec)
    options: dict[str, Any] = {"dtype": dtypes[dtype], "device": device, "max_prompt_tokens": max_prompt_tokens}
    if directory is not None:
        return load_local(str(directory), spec, **options)
    try:
        return load_local(spec, spec, **options)
    except OSError as error:
        raise EndpointError(
            f"cannot get {spec!r} from the Hugging Face hub ({_first_sentence(error)}): give a directory, the embedded student {EMBEDDED!r}, or check the network"
        ) from error


def require_torch() -> None:
    """Raises ConfigError where the `train` extra is not installed. To be called before anything imports torch."""
    settle()
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"a model in this process needs {name}: pip install 'swe-srl[train]'")


def _directory(spec: str) -> Path | None:
    """The directory that holds the model, or None where `spec` is an id on the hub."""
    if spec == EMBEDDED:
        return embedded_directory()
    path = Path(spec)
    if not path.exists():
        if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
            raise ConfigError(
                f"no directory {spec}: give a model directory, a training run, {EMBEDDED!r}, a hub id or a URL"
            )
        return None
    if path.is_dir():
        path = last_checkpoint(path) or path
    if not path.is_dir() or not (path / "config.json").is_file():
        raise ConfigError(
            f"{spec} holds no model (no config.json): give a Hugging Face directory, or a run of `swe-srl train` that has a checkpoint"
        )
    if not any(path.glob("*.safetensors")) and not any(path.glob("pytorch_model*.bin")):
        raise ConfigError(
            f"{spec} holds no weights (no *.safetensors): copy the model's weights there, or give another directory"
        )
    return path


def last_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a training run, or of the last stage of a chain that has one; None when there is none."""
    found = [
        (json.loads(file.read_text())["update"], file.parent)
        for file in (run / CHECKPOINTS).glob("update-*/checkpoint.json")
    ]
    if found:
        return max(found)[1]
    stages = sorted(run.glob(STAGE), key=lambda path: -int(path.name.partition("-")[0]))
    return next((path for path in map(last_checkpoint, stages) if path), None)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")[:160] or type(error).__name__
