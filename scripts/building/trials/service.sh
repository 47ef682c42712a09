# By the file alone: install, run, upgrade with data and running executions, no downgrade, uninstall.
. /root/trials/common.sh
. /root/trials/upgrade.sh

/root/built/older/flowd install
flowd --version | grep -qx 'flowd 0.1.9'
upgrade /root/built/flowd install
refused 'is installed, and this is 0.1.9' /root/built/older/flowd install
flowd --version | grep -vx 'flowd 0.1.9'
start_service
flowd uninstall
none_runs
[ -z "$(ls -d /usr/bin/flowd /usr/local/bin/flowd 2> /dev/null)" ] || fail "the command is still there"
[ -e /etc/flowd/flowd.toml ] && [ -d /var/lib/flowd/appendonlydir ] || fail "settings or data are gone"
/root/built/flowd uninstall --purge
[ ! -e /etc/flowd ] && [ ! -e /var/lib/flowd ] && [ ! -e /opt/flowd ] || fail "something is left"
! getent passwd flowd || fail "the user is still there"
