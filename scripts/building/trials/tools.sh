# By pipx, with pip and with uv, and by uv, from the wheel as a file: the command, and a service of the
# machine from it.
. /root/trials/common.sh
. /root/trials/upgrade.sh

python3 -m venv /root/tools
/root/tools/bin/pip install -q --no-index --find-links /root/built/wheels pipx uv
export PATH="/root/.local/bin:/root/tools/bin:$PATH" UV_PYTHON_DOWNLOADS=never
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/built/wheels
# No variable of uv's says that there is no index.
mkdir -p /root/.config/uv
printf 'no-index = true\nfind-links = ["/root/built/wheels"]\n' > /root/.config/uv/uv.toml

works() {
  echo "= by $1"
  [ "$(command -v flowd)" = /root/.local/bin/flowd ] || fail "the command is $(command -v flowd)"
  flowd demo > demo.log
  grep -qx 'race COMPLETED' demo.log
  flowd help install | grep -q 'The single file' || fail "it has no manual"
  flowd new shop && python3 -m py_compile shop.py && rm shop.py test_shop.py
  "$(dirname "$(readlink -f /root/.local/bin/flowd)")/python" -m flowd --version
  flowd install
  command=/usr/local/bin/flowd
  begin
  "$command" stop
  go_on
  "$command" uninstall --purge
  [ ! -e /etc/flowd ] && [ ! -e /opt/flowd ] || fail "something is left"
}

for backend in pip uv; do
  pipx install --backend "$backend" /root/built/*.whl
  works "pipx with $backend"
  pipx uninstall flowd
done
uv tool install /root/built/*.whl
works uv
uv tool uninstall flowd
[ ! -e /root/.local/bin/flowd ] || fail "the command is still there"
