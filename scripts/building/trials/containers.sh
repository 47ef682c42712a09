# The compose file with three workers, then the image alone: what is stopped or killed loses nothing.
source=$1
. "$source/scripts/building/trials/common.sh"
ip link set lo up
api=http://localhost:8000

say() { printf '== %s\n' "$1"; }
quietly() { "$@" > /dev/null 2>> "$source/engine.log"; }
compose() { quietly podman-compose -f "$source/scripts/container/compose.yaml" "$@"; }
post() { curl -sS --fail-with-body -X POST -H 'content-type: application/json' ${2:+-d "$2"} "$api/$1"; }
status_of() { curl -sS "$api/workflows/$1" | sed -n 's/.*"status": *"\([A-Z]*\)".*/\1/p'; }

# start HANDLER COUNT CONFIG: prints the id of an execution of so many nodes, all of them running.
start() {
  nodes=$(for at in $(seq "$2"); do printf '%s{"id": "n%d", "handler": "%s", "config": %s}' "${comma-}" "$at" "$1" "$3"; comma=', '; done)
  id=$(post workflow "{\"name\": \"$1\", \"dag\": {\"nodes\": [$nodes]}}" | sed 's/.*"execution_id": *"\([0-9a-f]*\)".*/\1/')
  post "workflow/trigger/$id" > /dev/null
  printf '%s' "$id"
}
running() { curl -sS "$api/workflows/$1/nodes" | grep -o '"state": *"RUNNING"' | wc -l; }
attempts() { curl -sS "$api/workflows/$1/results" | grep -o '"attempt": *[0-9]' | grep -o '[0-9]$' | sort -u | tr '\n' ' '; }
finished() {
  until_is COMPLETED status_of "$1"
  [ "$(attempts "$1")" = "$2 " ] || fail "its attempts are $(attempts "$1"), not $2"
}
code_of() { podman inspect "$1" --format '{{.State.ExitCode}}'; }
in_volume() { podman run --rm --network none -i -v flowd_flowd:/var/lib/flowd --entrypoint sh localhost/flowd -c "$1"; }

# An older podman removes what others depend on only when these are gone, and no network that is not there.
clear_away() {
  quietly podman rm -fa -t 0 || quietly podman rm -fa -t 0
  quietly podman volume prune -f
}
trap 'clear_away; quietly podman network rm -f flowd_default || true' EXIT
clear_away
podman volume create flowd_flowd > /dev/null
in_volume 'cat > ours.py; printf "[handlers]\nmodules = [\"ours\"]\n" > flowd.toml' << 'X'
import os, subprocess, time
from flowd.handlers import handler

@handler("holds")
def holds(config: dict, context) -> dict:
    while context.attempt == 1 and not os.path.exists(config["until"]):
        time.sleep(0.05)
    return {"attempt": context.attempt}

@handler("leaves")
def leaves(config: dict, context) -> dict:
    for _ in range(5):
        subprocess.run(["sh", "-c", "setsid sh -c 'exit 0' &"], check=True)
    return {"attempt": context.attempt}

@handler("eats")
def eats(config: dict, context) -> dict:
    kept = [bytes(2**24) and os.urandom(2**24) for _ in range(64)] if context.attempt == 1 else []
    return {"attempt": context.attempt, "kept": len(kept)}
X

say "compose, three workers: the calls of the specification"
compose up -d --no-build --scale worker=3
until_is '"live":3' curl -sS "$api/readyz"
id=$(post workflow "$(cat "$source/flowd/samples/linear.json")" | sed 's/.*"execution_id": *"\([0-9a-f]*\)".*/\1/')
post "workflow/trigger/$id" > /dev/null
until_is COMPLETED status_of "$id"
until_is 'Simulated call to http://service-a' curl -sS "$api/workflows/$id/results"
until_is '"status": *"ok"' curl -sS "$api/health"

say "a worker is stopped, and its nodes end in time"
id=$(start holds 6 '{"until": "/var/lib/flowd/go1"}')
until_is '^6$' running "$id"
(sleep 1; in_volume 'touch go1') &
podman stop -t 10 flowd_worker_1 > /dev/null
[ "$(code_of flowd_worker_1)" = 0 ] || fail "it ended with $(code_of flowd_worker_1)"
finished "$id" 1

say "all workers are stopped, and killed ten seconds later amid their nodes"
id=$(start holds 6 '{"until": "/var/lib/flowd/never"}')
until_is '^6$' running "$id"
podman stop -t 10 flowd_worker_2 flowd_worker_3 > /dev/null 2>> "$source/engine.log"
[ "$(code_of flowd_worker_2) $(code_of flowd_worker_3)" = '137 137' ] || fail "they were not killed"
quietly podman start flowd_worker_1 flowd_worker_2
finished "$id" 2

say "all services are killed at once"
id=$(start holds 6 '{"until": "/var/lib/flowd/never"}')
until_is '^6$' running "$id"
quietly podman kill -s KILL flowd_worker_1 flowd_worker_2 flowd_scheduler_1 flowd_api_1 flowd_redis_1
compose up -d --no-build --scale worker=3
quietly podman start flowd_redis_1 flowd_api_1 flowd_scheduler_1 flowd_worker_1 flowd_worker_2
finished "$id" 2
compose down -t 10

say "the image alone: first process, nobody, read-only, a limit of memory"
quietly podman run -d --name alone --network host --read-only --tmpfs /tmp --cap-drop ALL --memory 512m \
  -v flowd_flowd:/var/lib/flowd localhost/flowd
until_is '"live":[1-9]' curl -sS "$api/readyz"
[ "$(podman exec alone id -u):$(podman exec alone id -g)" = 10001:10001 ] || fail "it is $(podman exec alone id)"
[ "$(podman exec alone stat -c %U:%G /var/lib/flowd)" = flowd:flowd ] || fail "the volume is another's"
if podman exec alone touch /x 2> /dev/null; then fail "its root is not read-only"; fi
podman healthcheck run alone > /dev/null || fail "it is not healthy"
finished "$(start leaves 3 '{}')" 1
until_is '^0$' sh -c 'podman exec alone sh -c "cat /proc/[0-9]*/stat" | grep -c ") Z " || true'
finished "$(start eats 1 '{}')" 2

say "it is stopped, and its nodes end in time"
id=$(start holds 4 '{"until": "/var/lib/flowd/go2"}')
until_is '^4$' running "$id"
(sleep 1; in_volume 'touch go2') &
podman stop -t 10 alone > /dev/null
[ "$(code_of alone)" = 0 ] || fail "it ended with $(code_of alone)"
quietly podman start alone
finished "$id" 1

say "it is stopped, and killed ten seconds later amid its nodes; then killed at once"
id=$(start holds 4 '{"until": "/var/lib/flowd/never"}')
until_is '^4$' running "$id"
podman stop -t 10 alone > /dev/null 2>> "$source/engine.log"
[ "$(code_of alone)" = 137 ] || fail "it was not killed: $(code_of alone)"
quietly podman start alone
finished "$id" 2
id=$(start holds 4 '{"until": "/var/lib/flowd/never"}')
until_is '^4$' running "$id"
quietly podman kill alone
quietly podman start alone
finished "$id" 2
say "as it should be"
