#!/bin/sh
# The clients of ZooKeeper that `make interop` runs, where they are missing: Debian's package of the
# C client's shell (as root), and what Maven fetches and compiles below .interop: ZooKeeper's own
# shell and a program that uses Curator. Afterwards nothing more is fetched.
set -eu
cd -- "$(dirname -- "$0")/.."

project=tests/interop/zookeeper/curator
built=.interop/curator

missing=
for tool in java javac mvn; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
if [ -n "$missing" ]; then
    echo "not installed:$missing (Debian: apt-get install default-jdk-headless maven)" >&2
    exit 1
fi

if ! command -v cli_mt >/dev/null 2>&1 && [ ! -x /usr/lib/zookeeper/bin/cli_mt ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "cli_mt, the shell of ZooKeeper's C client, is not on PATH; build it from source" >&2
        exit 1
    elif [ "$(id -u)" != 0 ]; then
        echo "cli_mt is missing; as root: apt-get install zookeeper-bin" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends zookeeper-bin
fi

# Made from exactly these sources, or made anew. The stamp is written last.
wanted=$(find "$project" -type f | LC_ALL=C sort | xargs cksum)
stamp=$built/made-from
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

echo "building $project ..." >&2
rm -rf "$built"
maven() {
    # Empty lines are all that it says of a success.
    mvn -q -B -f "$project/pom.xml" "-Dmaven.repo.local=$PWD/.interop/maven" "$@" process-classes
}
# Without the network, if all is there already.
maven -o >/dev/null 2>&1 || maven
printf '%s\n' "$wanted" >"$stamp"
