#!/bin/sh
# flowd @VERSION@ for Linux on @MACHINE@. What follows this script is a compressed folder, which it
# unpacks once; from then on it only starts what is there.

fail() {
  printf 'flowd: %s\n' "$@" >&2
  exit 73
}

# What a start that was killed has left is removed by the next one; nobody sees half a folder.
unpack() {
  [ "$(uname -m)" = @MACHINE@ ] || fail "this file is for @MACHINE@, and this machine is $(uname -m)"
  umask 022
  mkdir -p "$shelf" || fail "cannot unpack into $shelf; XDG_CACHE_HOME may name another folder"
  exec 9> "$shelf/.lock" || fail "cannot unpack into $shelf; XDG_CACHE_HOME may name another folder"
  if command -v flock > /dev/null; then flock 9; fi
  if [ ! -d "$home" ]; then
    printf 'unpacking flowd @VERSION@ into %s ...\n' "$home" >&2
    rm -rf "$shelf"/.new-*
    new=$shelf/.new-$$
    mkdir "$new" || fail "cannot unpack into $shelf"
    found=$(tail -c +@OFFSET@ "$0" | sha256sum)
    [ "${found%% *}" = @DIGEST@ ] || give_up "$0 is damaged or was not loaded to its end"
    # Of a full disk tar says as much as there are files.
    said=$(tail -c +@OFFSET@ "$0" | gzip -dc | tar -xf - -C "$new" --no-same-owner 2>&1) ||
      give_up "$(printf '%s\n' "$said" | head -n 1)" "cannot unpack into $shelf; is there room for @MEGABYTES@ MB?"
    "$new/bin/python3" -c '' ||
      give_up "what is in $shelf cannot run here: flowd needs glibc @GLIBC@ or newer, and a folder that is not mounted noexec (XDG_CACHE_HOME may name another)"
    touch "$new"
    mv "$new" "$home" || give_up "cannot unpack into $home"
    # The one before may still be needed, and any may still run.
    ls -1dt "$shelf"/[0-9]* | tail -n +3 | while read -r old; do
      grep -qsF "$old/" /proc/[0-9]*/maps || rm -rf "$old"
    done
  fi
  exec 9>&-
}

give_up() {
  rm -rf "$new"
  fail "$@"
}

# Another interpreter's, to which this one would listen.
unset PYTHONHOME
if [ -n "$XDG_CACHE_HOME" ]; then
  shelf=$XDG_CACHE_HOME/flowd
elif [ -w /var/cache ]; then
  shelf=/var/cache/flowd
elif [ -n "$HOME" ]; then
  shelf=$HOME/.cache/flowd
else
  fail "there is no folder to unpack into: XDG_CACHE_HOME and HOME are not set"
fi
home=$shelf/@VERSION@-@SHORT@
[ -d "$home" ] || unpack
[ -O "$home" ] || fail "$home belongs to another user; XDG_CACHE_HOME may name another folder"
exec "$home/bin/python3" "$home/bin/flowd" "$@"
exit 1
