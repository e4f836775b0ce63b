#!/usr/bin/env bash
# Makes sure that `python3 -m venv` works. Debian splits it off into a package of its own.
set -euo pipefail

if python3 -c 'import ensurepip, venv' 2>/dev/null; then
  exit 0
fi
if [[ $EUID -ne 0 ]]; then
  echo "python3 with its venv module is missing (Debian: apt install python3-venv)" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv
