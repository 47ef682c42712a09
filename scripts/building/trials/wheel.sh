# By the wheel, in an environment of its own: the command, then a service of the machine, and off again.
. /root/trials/common.sh

python3 -m venv /root/environment
/root/environment/bin/pip install -q --no-index --find-links /root/built/wheels flowd
/root/environment/bin/flowd demo > demo.log
grep -qx 'race COMPLETED' demo.log
/root/environment/bin/python -m flowd install
flowd --version
. /root/trials/upgrade.sh
upgrade /root/environment/bin/flowd install
/root/built/flowd-old install 2> /root/said && fail "it was not refused"
grep 'is installed, and this is 0.1.9' /root/said
flowd uninstall --purge
[ ! -e /etc/flowd ] && [ ! -e /opt/flowd ] || fail "something is left"
