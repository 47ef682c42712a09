# A bare Debian in a folder, for a script that has set `folder` to source.
# shellcheck shell=bash

[ "$(id -u)" = 0 ] || fail "only root may make a Debian: run it with sudo"
suite=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")

# debian NAME PACKAGE...: made once, and then used by every run.
debian() {
  local name=$1
  shift
  [ ! -e "$folder/$name.made" ] || return 0
  rm -rf "${folder:?}/$name"
  command -v debootstrap > /dev/null || fail "debootstrap is needed: sudo apt-get install debootstrap"
  debootstrap --variant=minbase ${1:+--include="$1"} "$suite" "$folder/$name" > "$folder/$name.log"
  touch "$folder/$name.made"
}
