# The project's own Python environment, for the scripts beside this file to source.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv="$root/.venv"
# Read in the environment's interpreter, so that a script never runs another project's packages.
unset PYTHONHOME PYTHONPATH
# Without its bytecode each process compiles flowd anew: half of what a start takes.
unset PYTHONDONTWRITEBYTECODE

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# Prints the first interpreter that can run flowd and build its environment.
find_python() {
  local candidate version too_old="" incomplete=""
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
    command -v "$candidate" >/dev/null || continue
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      too_old="$candidate is Python $version"
    elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      incomplete=${incomplete:-$version}
    else
      printf '%s\n' "$candidate"
      return
    fi
  done
  if [ -n "$incomplete" ]; then
    fail "Python $incomplete has no venv module. Install it and run this again:" \
      "  sudo apt-get install python$incomplete-venv     (Debian, Ubuntu)"
  fi
  fail "flowd needs Python 3.11 or newer${too_old:+; $too_old}. Install one and run this again:" \
    "  sudo apt-get install python3 python3-venv     (Debian 12, Ubuntu 24.04 or newer)" \
    "  sudo dnf install python3.12                   (Fedora, Red Hat)"
}

# What an installed environment depends on: when this text changes, it is installed again.
install_key() {
  printf '%s\n' "$root"
  "$venv/bin/python" -c 'import sys; print(sys.version)'
  cksum < "$root/pyproject.toml"
}

make_venv() {
  local python output
  python=$(find_python)
  output=$("$python" -m venv --clear "$venv" 2>&1) ||
    fail "$output" "cannot create $venv with $python"
}

# Whether the environment belongs to another folder: one that was moved, or copied along.
is_moved_venv() {
  local stamp
  for stamp in "$venv"/installed-*; do
    if [ -e "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$root" ]; then
      return 0
    fi
  done
  return 1
}

# Whether it was made to its end: `activate` is what venv writes last, after pip.
is_whole_venv() {
  [ -e "$venv/bin/activate" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null
}

# install_flowd [EXTRA]: the package, editable, with one set of extras; nothing when it is there.
install_flowd() {
  local extra=${1:-} output
  local stamp="$venv/installed-${extra:-flowd}"
  if ! is_whole_venv || is_moved_venv; then
    make_venv
  fi
  if [ "$(cat "$stamp" 2>/dev/null)" = "$(install_key)" ]; then
    return
  fi
  printf 'installing flowd%s into %s ...\n' "${extra:+ and its $extra tools}" "$venv" >&2
  output=$("$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
    -e "$root${extra:+[$extra]}" 2>&1) ||
    fail "$output" "cannot install flowd; what pip said stands above"
  install_key > "$stamp"
}
