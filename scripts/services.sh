#!/usr/bin/env bash
# Install what some tests run for themselves, where it is missing: servers of PostgreSQL and Redis, and Chromium.
# The tests start them on free ports in temporary folders; no cluster and no service is left running by this.
set -euo pipefail

missing=()
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v chromium >/dev/null || missing+=(chromium)
[ ${#missing[@]} -eq 0 ] && exit 0

fail() { echo "error: the tests need ${missing[*]}; $*" >&2; exit 1; }

command -v apt-get >/dev/null || fail "there is no apt-get here, so install them yourself"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || fail "run as root: apt-get install ${missing[*]}"
    as_root=(sudo -n)
fi
get=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)

echo "installing ${missing[*]} with apt-get (a minute or two)" >&2
"${get[@]}" update >/dev/null || true # the lists that are here may do
if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    # Debian makes and starts a cluster with the server unless it is told not to beforehand.
    "${get[@]}" install --yes --no-install-recommends postgresql-common >/dev/null
    "${as_root[@]}" sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf
fi
# Packages of servers start them on their usual ports unless a policy says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
"${get[@]}" install --yes --no-install-recommends "${missing[@]}" >/dev/null
