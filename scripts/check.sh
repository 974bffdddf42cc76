#!/usr/bin/env bash
# Lint, formatting, types and the import contract.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(dirname "$(scripts/setup.sh)")
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/lint-imports"
