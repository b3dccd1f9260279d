#!/usr/bin/env bash
# From a fresh Debian or Ubuntu machine to a ready .venv: interpreter, system GL libraries, locked packages.
#
#   bash scripts/setup.sh        what `make train` and `make test` call; costs nothing when nothing changed
#
# PYTHON=/path/to/python chooses the interpreter (3.11 to 3.13); a .venv of another version is made
# anew. pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf ...) decide where packages come from;
# nothing is hard-coded here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What MuJoCo needs to render without a display: OSMesa, or EGL with Mesa's software drivers.
readonly GL_PACKAGES=(libosmesa6 libegl1 libgl1-mesa-dri libegl-mesa0)
readonly SUITABLE='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
readonly STAMP=.venv/.setup-stamp

say() { printf 'set-up: %s\n' "$*"; }
die() {
  printf 'set-up: error: %s\n' "$*" >&2
  exit 1
}

apt_command() {
  echo "apt-get update && apt-get install -y --no-install-recommends $*"
}

apt_ready() { # root, on a system with apt
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

apt_present() { # one line for each architecture
  dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

apt_offers() { # a newer release may have dropped a package; a bare container has no package lists yet
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt-get update -qq </dev/null >/dev/null || return 1
  apt-cache show "$1" >/dev/null 2>&1
}

# Rendering is not needed by every experiment, so this reports and carries on; the renderer probe
# stops a run that does need it, with one clear error.
system_libraries() {
  local package missing=()
  for package in "${GL_PACKAGES[@]}"; do
    if apt_present "$package"; then
      say "apt package $package: present"
    elif apt_ready && ! apt_offers "$package"; then
      say "apt package $package: missing, and apt offers none (apt-get update may help)"
    else
      say "apt package $package: missing"
      missing+=("$package")
    fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! apt_ready; then
    say "cannot install as this user or on this system; rendering may fail until root has run: $(apt_command "${missing[@]}")"
  elif apt_install "${missing[@]}"; then
    for package in "${missing[@]}"; do say "apt package $package: installed"; done
  else
    say "apt-get failed; rendering may fail until this has worked: $(apt_command "${missing[@]}")"
  fi
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if "$candidate" -c "$SUITABLE" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# What uv made, or a `python -m venv` that was interrupted, has no pip.
venv_ready() { # of the same version as an interpreter, where that is not ''
  .venv/bin/python -c "$SUITABLE" 2>/dev/null && .venv/bin/python -c 'import pip' 2>/dev/null &&
    { [ -z "$1" ] || [ "$(.venv/bin/python --version)" = "$("$1" --version)" ]; }
}

# Debian splits ensurepip into a package of its own: a bare python3 cannot make a virtual environment.
virtual_environment() {
  local python='' version
  if [ -n "${PYTHON:-}" ]; then
    python=$(find_python) || die "PYTHON=$PYTHON is not a Python of 3.11 to 3.13"
  fi
  if venv_ready "$python"; then
    return
  fi
  if [ -z "$python" ] && ! python=$(find_python); then
    apt_ready || die "no Python of 3.11 to 3.13 found; install one (as root: $(apt_command python3 python3-venv)) or set PYTHON"
    say "no Python of 3.11 to 3.13 found: installing the system's"
    apt_install python3 python3-venv && python=$(find_python) ||
      die "the system offers no Python of 3.11 to 3.13; install one and set PYTHON"
  fi
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt_ready || die "$python cannot make virtual environments; as root: $(apt_command "python$version-venv")"
    say "apt package python$version-venv: missing"
    apt_install "python$version-venv" || die "apt-get failed; run: $(apt_command "python$version-venv")"
    say "apt package python$version-venv: installed"
  fi
  say "making .venv with $python ($("$python" --version))"
  "$python" -m venv --clear .venv
}

# torch goes first, by its exact version: an open range, or another package's wish for torch, would
# pull gigabytes of CUDA packages on a machine where a CPU wheel of the locked version is to be had.
packages() {
  local torch pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet)
  torch=$(grep -m 1 '^torch==' requirements.lock)
  say "installing $torch"
  "${pip[@]}" --constraint requirements.lock "$torch"
  say "installing the other packages of requirements.lock"
  "${pip[@]}" --no-deps --requirement requirements.lock
  "${pip[@]}" --no-deps --no-build-isolation --editable .
  .venv/bin/python -m pip check >/dev/null || die "the locked packages do not fit together: see .venv/bin/python -m pip check"
}

# The checkout's own path is part of the stamp: a moved or copied .venv still points at the old place.
fingerprint() {
  { cat requirements.lock pyproject.toml scripts/setup.sh && pwd -P && .venv/bin/python --version; } | sha256sum
}

# Two commands started at once on a fresh checkout take turns.
exec 9<scripts/setup.sh
flock 9

system_libraries
virtual_environment
if [ "$(cat "$STAMP" 2>/dev/null)" = "$(fingerprint)" ]; then
  say ".venv is up to date"
else
  rm -f "$STAMP"
  packages
  fingerprint >"$STAMP"
  say ".venv is ready"
fi
