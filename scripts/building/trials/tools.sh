# By pipx and by uv, from the wheel as a file: the command, and a service of the machine from it.
. /root/trials/common.sh
. /root/trials/upgrade.sh

python3 -m venv /root/tools
/root/tools/bin/pip install -q --no-index --find-links /root/built/wheels pipx uv
export PATH="/root/.local/bin:/root/tools/bin:$PATH" UV_PYTHON_DOWNLOADS=never
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/built/wheels UV_NO_INDEX=1 UV_FIND_LINKS=/root/built/wheels

works() {
  [ "$(command -v flowd)" = /root/.local/bin/flowd ] || fail "the command is $(command -v flowd)"
  flowd demo > demo.log
  grep -qx 'race COMPLETED' demo.log
  flowd install
  command=/usr/local/bin/flowd
  begin
  "$command" stop
  go_on
  "$command" uninstall --purge
  [ ! -e /etc/flowd ] && [ ! -e /opt/flowd ] || fail "something is left"
}

pipx install /root/built/*.whl
works
pipx uninstall flowd
uv tool install /root/built/*.whl
works
uv tool uninstall flowd
[ ! -e /root/.local/bin/flowd ] || fail "the command is still there"
