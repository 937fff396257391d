#!/usr/bin/env bash
# Make a virtual environment at $1 with the first Python >= 3.11 found, or with PYTHON=…, which pyenv may have, and nothing else.
set -euo pipefail
venv=${1:?where}

fit() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

others=(python3 python3.13 python3.12 python3.11 python3.14 python)
if [[ -n ${PYTHON:-} ]]; then
  # pyenv's stand-in on the PATH does not run while another version is the chosen one.
  others=("$PYTHON" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/"${PYTHON##*/}")
fi

for python in "${others[@]}"; do
  if command -v "$python" >/dev/null 2>&1 && fit "$python"; then
    echo "making $venv with $("$python" --version)"
    exec "$python" -m venv "$venv"
  fi
done

if [[ -n ${PYTHON:-} ]]; then
  echo "PYTHON=$PYTHON is no Python >= 3.11 with the venv module that runs here" >&2
  exit 1
fi
cat >&2 <<'EOF'
meshlib needs Python 3.11 or newer with the venv module, and none was found.
  Debian, Ubuntu:  apt-get install python3 python3-venv
  Fedora:          dnf install python3
  macOS:           brew install python
or say where one is:  make PYTHON=/path/to/python3 …
EOF
exit 1
