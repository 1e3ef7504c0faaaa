#!/bin/sh
# Makes a virtual environment, if it is not there as it should be:
#   setup.sh          .venv: the locked dependencies and the project itself, editable
#   setup.sh proto    .venv-proto: the code generator alone, whose pins would hold .venv back
#
# An environment counts only with a stamp in it, which is written last and says what it was made
# from. So an interrupted run, a changed lock file or a clone that has moved (environments contain
# their own path) is made anew, and otherwise there is nothing to do, and no network is needed.
set -eu
cd -- "$(dirname -- "$0")/.."
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_USER

case ${1:-} in
    '') venv=.venv lock=requirements-dev.lock ;;
    proto) venv=.venv-proto lock=requirements-proto.lock ;;
    *) echo "usage: setup.sh [proto]" >&2; exit 2 ;;
esac
stamp=$venv/coordsvc-setup

fingerprint() {
    pwd -P
    cksum pyproject.toml "$lock" scripts/setup.sh
}

is_complete() {
    [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat -- "$stamp")" = "$wanted" ]
}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"
}

wanted=$(fingerprint)
if is_complete; then exit 0; fi

# One at a time, where the system has the means.
if command -v flock >/dev/null 2>&1; then
    exec 9>.setup.lock
    flock 9
    if is_complete; then exit 0; fi
fi

python=$(scripts/find_python.sh)
echo "making $venv with $python ..." >&2
rm -f -- "$stamp"
rm -rf -- "$venv"
"$python" -m venv "$venv"
pip_install --require-hashes -r "$lock"
if [ "$venv" = .venv ]; then
    # The build backend is among the locked dependencies: nothing more is fetched.
    pip_install --no-deps --no-build-isolation -e .
fi
printf '%s\n' "$wanted" >"$stamp.new"
mv -- "$stamp.new" "$stamp"
