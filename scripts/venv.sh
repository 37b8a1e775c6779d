#!/usr/bin/env bash
# Make .venv at the repository's root and install a set of pinned packages, and Flyball itself from this folder.
#   scripts/venv.sh PYTHON requirements/SET.txt
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 requirements=$2

fail() { echo "error: $*" >&2; exit 1; }

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    command -v "$python" >/dev/null || fail "there is no $python; install Python 3.11 or newer, or name it: make PYTHON=..."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" --version) is too old; Flyball needs Python 3.11 or newer: make PYTHON=python3.11"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "this Python cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv"
    echo "making .venv with $("$python" --version)" >&2
    "$python" -m venv --clear .venv
fi

install=(.venv/bin/python -m pip install --disable-pip-version-check --no-input --quiet)
echo "installing $(grep -c == "$requirements") packages of $requirements (a minute or two the first time)" >&2
torch=$(grep '^torch==' "$requirements" || true)  # first and alone, so that a build without CUDA is taken where there is one
[ -z "$torch" ] || "${install[@]}" --no-deps "$torch"
"${install[@]}" --requirement "$requirements"
"${install[@]}" --no-deps --editable .
