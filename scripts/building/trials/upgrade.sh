# begin, then go_on: what one version was given to do goes on in the next. `command` is its flowd.

command=flowd
work=/root/trials/work

as_flowd() {
  setpriv --reuid flowd --regid flowd --clear-groups env HOME=/var/lib/flowd sh -c "cd /var/lib/flowd && exec $*"
}

start_service() {
  as_flowd "$command start --config /etc/flowd/flowd.toml" >> /root/log 2>&1 &
  until_ready "$command"
}

none_runs() {
  ! grep -qs '^flowd: ' /proc/[0-9]*/cmdline || fail "what was removed runs on"
}

newest_tick() {
  "$command" ls --name tick --status COMPLETED -o id | head -n 1
}

has_ticked() {
  [ "$(newest_tick)" = "$seen" ] || echo yes
}

# In the settings of this machine, which every upgrade keeps.
begin() {
  sed -i 's/^grace_s = [0-9.]*/grace_s = 1.0/; s/^modules = \[\]/modules = ["ours"]/' /etc/flowd/flowd.toml
  install -m 644 "$work/ours.py" /etc/flowd/ours.py
  settings=$(sha256sum /etc/flowd/flowd.toml)
  start_service
  "$command" run "$work/tick.yaml" > /dev/null
  before=$("$command" get @latest -o json | sed -n 's/.*"execution_id": "\([0-9a-f]*\)".*/\1/p' | head -n 1)
  begun=$("$command" submit "$work/held.yaml" --trigger -o id)
  parent=
  # What an older version cannot do it need not.
  if "$command" definitions ls > /dev/null 2>&1; then
    "$command" definitions put child "$work/child.yaml" > /dev/null
    "$command" definitions put tick "$work/tick.yaml" > /dev/null
    "$command" schedules put every "$work/every.yaml" > /dev/null
    parent=$("$command" submit "$work/waiting.yaml" --trigger -o id)
    until_is 'each .*RUNNING' "$command" get "$parent"
  fi
  until_is '^ *a .*RUNNING' "$command" get "$begun"
  until_is '^ *b .*RUNNING' "$command" get "$begun"
  echo "begun by $("$command" --version):"
  "$command" ls | head -n 8
}

go_on() {
  [ "$settings" = "$(sha256sum /etc/flowd/flowd.toml)" ] || fail "the settings were changed"
  [ "$(stat -c '%U %a' /var/lib/flowd /etc/flowd)" = 'flowd 700
root 750' ] || fail "the folders are open: $(stat -c '%U %a' /var/lib/flowd /etc/flowd)"
  start_service
  echo "goes on in $("$command" --version):"
  "$command" get "$before" > /dev/null
  touch /var/lib/flowd/go
  if [ -n "$parent" ]; then
    seen=$(newest_tick)
    "$command" approve "$parent" ok > /dev/null
    ended "$command" get "$parent"
    until_is yes has_ticked
  fi
  ended "$command" get "$begun"
  "$command" ls | head -n 8
  "$command" doctor || fail "doctor finds something"
  "$command" stop
}

# upgrade COMMAND...: what runs goes on until it is restarted, as systemd would.
upgrade() {
  begin
  "$@"
  "$command" get "$begun" | grep -q RUNNING || fail "it does not run any more"
  "$command" stop
  go_on
}
