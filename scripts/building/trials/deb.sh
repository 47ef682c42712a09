# By the Debian package: install, run, upgrade, no downgrade, remove, purge.
. /root/trials/common.sh
. /root/trials/upgrade.sh

dpkg --install /root/built/older/flowd.deb
flowd --version | grep -qx 'flowd 0.1.9'
refused 'apt-get upgrades and removes it' /root/built/flowd install
upgrade dpkg --install /root/built/flowd.deb
refused 'is installed, and this is 0.1.9' dpkg --install /root/built/older/flowd.deb
flowd --version | grep -vx 'flowd 0.1.9'
[ -L /etc/systemd/system/multi-user.target.wants/flowd.service ] || fail "it would not start at boot"
start_service
dpkg --remove flowd
none_runs
[ -z "$(ls -d /usr/bin/flowd /usr/local/bin/flowd 2> /dev/null)" ] || fail "the command is still there"
[ -e /etc/flowd/flowd.toml ] && [ -d /var/lib/flowd/appendonlydir ] || fail "settings or data are gone"
[ ! -e /usr/lib/flowd ] || fail "something is left of the program"
dpkg --install /root/built/flowd.deb
dpkg --purge flowd
[ ! -e /etc/flowd ] && [ ! -e /var/lib/flowd ] && [ ! -e /usr/lib/flowd ] || fail "something is left"
[ ! -e /etc/systemd/system/multi-user.target.wants/flowd.service ] || fail "systemd would still start it"
! getent passwd flowd || fail "the user is still there"
