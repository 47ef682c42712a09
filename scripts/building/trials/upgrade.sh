# upgrade COMMAND...: while a flowd of the user flowd runs with an execution, which goes on.

as_flowd() {
  setpriv --reuid flowd --regid flowd --clear-groups env HOME=/var/lib/flowd sh -c "cd /var/lib/flowd && exec $*"
}

start_service() {
  as_flowd 'flowd start --config /etc/flowd/flowd.toml' >> /root/log 2>&1 &
  until_ready flowd
}

upgrade() {
  sed -i 's/^grace_s = .*/grace_s = 1.0/' /etc/flowd/flowd.toml
  settings=$(sha256sum /etc/flowd/flowd.toml)
  printf 'name: long\ndag:\n  nodes:\n    - {id: a, handler: delay, config: {seconds: 12}}\n    - {id: b, handler: noop, dependencies: [a]}\n' > /root/long.yaml
  start_service
  id=$(flowd submit /root/long.yaml --trigger -o id)
  "$@"
  [ "$settings" = "$(sha256sum /etc/flowd/flowd.toml)" ] || fail "the settings were changed"
  [ "$(stat -c '%U %a' /var/lib/flowd /etc/flowd)" = 'flowd 700
root 750' ] || fail "the folders are open: $(stat -c '%U %a' /var/lib/flowd /etc/flowd)"
  # What runs goes on until it is restarted, as systemd would.
  flowd get "$id" | grep -q WAITING || flowd get "$id" | grep -q RUNNING
  flowd stop
  start_service
  ended flowd get "$id"
  flowd stop
}
