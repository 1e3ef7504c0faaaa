#!/bin/sh
# What `make bench` measures beside the service, and what makes load: ZooKeeper by Maven, etcd and the
# generator of unary gRPC calls built by Go, all below .bench. Made again only when what they are
# made from has changed; otherwise nothing is fetched.
set -eu
cd -- "$(dirname -- "$0")/.."

missing=
packages=
need() {
    if ! command -v "$1" >/dev/null 2>&1; then
        missing="$missing $1"
        case " $packages " in *" $2 "*) ;; *) packages="$packages $2" ;; esac
    fi
}
need java default-jdk-headless
need javac default-jdk-headless
need mvn maven
# As new as the modules say: 1.26 (in an older Debian, from its backports).
need go golang-go
need setpriv util-linux
if [ -n "$missing" ]; then
    echo "not installed:$missing (Debian: apt-get install$packages)" >&2
    exit 1
fi
exec .venv/bin/python -m bench.peers
