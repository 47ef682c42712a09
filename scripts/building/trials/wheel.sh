# By the wheel, in an environment of its own: the command, then a service of the machine, an upgrade, and
# off again.
. /root/trials/common.sh
. /root/trials/upgrade.sh

environment() {
  python3 -m venv "/root/$1"
  "/root/$1/bin/pip" install -q --no-index --find-links /root/built/wheels "$2"
}

environment older /root/built/older/*.whl
environment newer /root/built/*.whl
/root/newer/bin/flowd demo > demo.log
grep -qx 'race COMPLETED' demo.log
/root/older/bin/python -m flowd install
flowd --version | grep -qx 'flowd 0.1.9'
upgrade /root/newer/bin/flowd install
refused 'is installed, and this is 0.1.9' /root/older/bin/flowd install
flowd uninstall --purge
[ ! -e /etc/flowd ] && [ ! -e /opt/flowd ] || fail "something is left"
