#!/usr/bin/env bash
# Makes sure that Node.js 18 or later and npm are installed.
set -euo pipefail

if command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; then
  exit 0
fi
if [[ $EUID -ne 0 ]]; then
  echo "Node.js 18 or npm is missing (Debian: apt install nodejs npm)" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm
