# The one file, in a folder: demo, own handler, a killed worker, stop.
. /root/trials/common.sh

! command -v python3 || fail "this is no bare Debian"
mkdir /root/work
cd /root/work
cp /root/built/flowd flowd
./flowd demo > demo.log
grep -qx 'race COMPLETED' demo.log
./flowd new shop > /dev/null
cat > flowd.toml <<'X'
[handlers]
modules = ["shop"]
[workers]
count = 2
X
cat >> shop.py <<'X'


@handler("alone", isolation="process")
def alone(config: dict, context: Context) -> dict:
    import sqlite3
    import time

    while context.attempt == 1:
        time.sleep(0.05)
    return {"attempt": context.attempt, "sqlite": sqlite3.sqlite_version}
X
printf 'name: own\ndag:\n  nodes:\n    - {id: a, handler: alone}\n    - {id: b, handler: noop, dependencies: [a]}\n' > own.yaml
./flowd config check > /dev/null
setsid ./flowd start > log 2>&1 &
until_ready ./flowd
id=$(./flowd submit own.yaml --trigger -o id)
until_is 'a .*RUNNING' ./flowd get "$id"
kill -9 $(workers ./flowd)
ended ./flowd get "$id"
./flowd results "$id" a | grep '"attempt": 2'
kill -USR2 $(./flowd status | sed -n 's/flowd (pid \([0-9]*\)).*/\1/p')
until_is 'Current thread' cat log
# All at once, while it runs.
supervisor=$(./flowd status | sed -n 's/flowd (pid \([0-9]*\)).*/\1/p')
kill -9 "$supervisor"
[ -z "$(ls -A /tmp)" ] || fail "something is left in /tmp: $(ls -A /tmp)"
setsid ./flowd start >> log 2>&1 &
until_ready ./flowd
./flowd results "$id" a > /dev/null
./flowd stop
[ -z "$(ls -A /tmp)" ] || fail "something is left in /tmp: $(ls -A /tmp)"
