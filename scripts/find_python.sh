#!/bin/sh
# Prints the interpreter to build virtual environments with: at least 3.11, and able to. Says in one
# line what is missing if there is none. PYTHON, if set, names the only candidate.
set -u

check='
import sys
if sys.version_info < (3, 11):
    sys.exit("is Python %d.%d" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError:
    sys.exit("lacks the venv or ensurepip module (Debian, Ubuntu: apt install python3-venv)")
'
rejected=

try() { # try FILE: prints it and ends the script if it will do
    [ -f "$1" ] && [ -x "$1" ] || return 0
    # It is run, not only looked at: a version manager's stand-in exists without an interpreter.
    if reason=$("$1" -I -c "$check" 2>&1); then
        printf '%s\n' "$1"
        exit 0
    fi
    case $reason in
        is\ Python*|lacks\ the*) rejected="$rejected; $1 $reason" ;;
    esac
}

if [ -n "${PYTHON:-}" ]; then
    try "$(command -v -- "$PYTHON")"
    rejected="; PYTHON=$PYTHON is set${rejected}"
else
    # Not only the first of each name on PATH: it may be one that does not work.
    for name in python3.13 python3.12 python3.11 python3.14 python3 python; do
        rest=$PATH:
        while [ -n "$rest" ]; do
            folder=${rest%%:*}
            rest=${rest#*:}
            try "${folder:-.}/$name"
        done
    done
fi
echo "coordsvc needs Python 3.11 or newer with venv and ensurepip, and found none on PATH${rejected}" >&2
exit 1
