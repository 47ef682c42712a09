# By the file alone: install, run, upgrade with data and a running execution, no downgrade, uninstall.
. /root/trials/common.sh

/root/built/flowd-old install
flowd --version | grep -qx 'flowd 0.1.9'
. /root/trials/upgrade.sh
upgrade /root/built/flowd-new install
refused 'is installed, and this is 0.1.9' /root/built/flowd-old install
flowd --version | grep -vx 'flowd 0.1.9'
flowd uninstall
[ -z "$(ls -d /usr/bin/flowd /usr/local/bin/flowd 2> /dev/null)" ] || fail "the command is still there"
[ -e /etc/flowd/flowd.toml ] && [ -d /var/lib/flowd/appendonlydir ] || fail "settings or data are gone"
/root/built/flowd-new uninstall --purge
[ ! -e /etc/flowd ] && [ ! -e /var/lib/flowd ] && [ ! -e /opt/flowd ] || fail "something is left"
! getent passwd flowd || fail "the user is still there"
