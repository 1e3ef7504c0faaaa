#!/bin/sh
# Renews the lock files from pyproject.toml: exact versions with hashes, for every platform and
# every Python the project supports. Needs the network. What is locked stays as it is unless the
# arguments, which go to the resolver, say otherwise: `--upgrade`, `--upgrade-package grpcio`.
set -eu
cd -- "$(dirname -- "$0")/.."

if [ ! -x .venv-lock/bin/uv ]; then
    python=$(scripts/find_python.sh)
    "$python" -m venv --clear .venv-lock
    .venv-lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'
fi

lock() { # lock FILE, then what to resolve
    file=$1
    shift
    .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --annotation-style line --custom-compile-command 'make lock' --output-file "$file" "$@"
}

lock requirements-dev.lock "$@" --group dev pyproject.toml
# It goes into the same environment as dev.
lock requirements-bench.lock "$@" --constraint requirements-dev.lock --group bench
lock requirements-proto.lock "$@" --group proto
