# Where the parts of an installed flowd are, for install and uninstall to source after venv.sh.
# shellcheck shell=bash

# Empty is this machine itself.
stage=""
purge=""

read_arguments() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --root)
        [ -n "${2:-}" ] || usage "--root needs a folder"
        mkdir -p "$2"
        stage=$(cd "$2" && pwd -P)
        [ "$stage" != / ] || stage=""
        shift
        ;;
      --purge)
        [ "${0##*/}" = uninstall ] || usage "unknown argument $1"
        purge=yes
        ;;
      -h | --help)
        # The comment at the head of the script.
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit
        ;;
      *) usage "unknown argument $1" ;;
    esac
    shift
  done
  if [ -z "$stage" ] && [ "$(id -u)" != 0 ]; then
    fail "this changes the whole machine: run it with sudo, or with --root DIR to stage it there"
  fi
  program="$stage/opt/flowd"
  settings="$stage/etc/flowd"
  data="$stage/var/lib/flowd"
  logs="$stage/var/log/flowd"
  units="$stage/etc/systemd/system"
  command="$stage/usr/local/bin/flowd"
}

usage() {
  printf '%s\n' "$1; see ${0##*/} --help" >&2
  exit 2
}

has_systemd() {
  [ -z "$stage" ] && [ -d /run/systemd/system ]
}
