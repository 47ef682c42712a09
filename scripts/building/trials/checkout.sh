# From older versions, which checkouts installed, to this one: by file, by wheel, and by package once the
# other is uninstalled, which keeps settings and data.
. /root/trials/common.sh
. /root/trials/upgrade.sh
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/built/wheels
# The older ones do not find the settings of the machine by themselves.
export FLOWD_CONFIG=/etc/flowd/flowd.toml

by_package() {
  "$checkout/scripts/uninstall"
  [ -d /var/lib/flowd/appendonlydir ] || fail "the data are gone"
  dpkg --install /root/built/flowd.deb
}

python3 -m venv /root/newer
/root/newer/bin/pip install -q /root/built/*.whl
for checkout in /root/built/checkouts/*; do
  for way in '/root/built/flowd install' '/root/newer/bin/flowd install' by_package; do
    echo "= from ${checkout##*/} by $way"
    "$checkout/scripts/install"
    command=/opt/flowd/.venv/bin/flowd
    begin
    [ "$way" != by_package ] || "$command" stop
    $way
    if [ "$way" = by_package ]; then
      command=flowd
    else
      "$command" get "$begun" | grep -q RUNNING || fail "it does not run any more"
      "$command" stop
    fi
    go_on
    if [ "$way" = by_package ]; then dpkg --purge flowd; else flowd uninstall --purge; fi
  done
done
