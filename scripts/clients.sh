#!/usr/bin/env bash
# Make the environments of the clients that tests/mlflow runs: .venv/clients/mlflow2 and .venv/clients/mlflow3, each with
# the packages of requirements/NAME.txt and nothing of Flyball's. An environment that is whole and up to date is kept.
#   scripts/clients.sh NAME...
set -euo pipefail
cd "$(dirname "$0")/.."

for name in "$@"; do
    requirements=requirements/$name.txt folder=.venv/clients/$name
    stamp=$folder/whole
    [ -e "$stamp" ] && cmp -s "$stamp" "$requirements" && continue
    rm -rf "$folder"
    echo "installing $(grep -c == "$requirements") packages of $requirements (a minute or two the first time)" >&2
    .venv/bin/python -m venv "$folder"
    install=("$folder/bin/python" -m pip install --disable-pip-version-check --no-input --quiet --no-deps)
    torch=$(grep '^torch==' "$requirements" || true)
    [ -z "$torch" ] || "${install[@]}" "$torch"
    "${install[@]}" --requirement "$requirements"
    cp "$requirements" "$stamp"
done
