#!/bin/sh
# Installs the Node test client's locked packages, if Node is here and they are not.
set -eu
cd -- "$(dirname -- "$0")/../tests/interop/node"

if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then exit 0; fi
# npm writes this file last, so it is also the mark of a finished installation.
installed=node_modules/.package-lock.json
if [ -f "$installed" ] && [ -z "$(find package.json package-lock.json -newer "$installed")" ]; then
    exit 0
fi
echo "installing the packages of tests/interop/node ..." >&2
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
