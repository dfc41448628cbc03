#!/usr/bin/env bash
# Every test: environment, install, imports, style, pytest. Arguments go to pytest (for example -m "not slow").
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install mpich test
cd "$root"
"$venv/bin/lint-imports" --config setup.cfg
"$venv/bin/ruff" check src tests benchmarks
"$venv/bin/python" -m pytest "$@"
