#!/usr/bin/env bash
# Make a virtual environment at $1 with the first Python >= 3.11 found; PYTHON=… goes first.
set -euo pipefail
venv=${1:?where}

fit() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

for python in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
  if command -v "$python" >/dev/null 2>&1 && fit "$python"; then
    echo "making $venv with $("$python" --version)"
    exec "$python" -m venv "$venv"
  fi
done

cat >&2 <<'EOF'
meshlib needs Python 3.11 or newer with the venv module, and none was found.
  Debian, Ubuntu:  apt-get install python3 python3-venv
  Fedora:          dnf install python3
  macOS:           brew install python
or say where one is:  make PYTHON=/path/to/python3 …
EOF
exit 1
