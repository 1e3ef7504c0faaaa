#!/bin/sh
# The system's tools that `make chaos` needs, installed where they are missing (Debian, Ubuntu; as
# root): ip makes the replicas' networks, nft cuts them. Elsewhere, install these two by hand.
set -eu

missing=
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v nft >/dev/null 2>&1 || missing="$missing nftables"
if [ -z "$missing" ]; then exit 0; fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "install with this system's own packager:$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of names
apt-get install -y -qq --no-install-recommends $missing
