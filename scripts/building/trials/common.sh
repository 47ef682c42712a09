# What the trials share, for them to source.

fail() {
  printf 'not as it should be: %s\n' "$1" >&2
  exit 1
}

# says COMMAND... : TEXT  the command fails, and says so with TEXT on stderr.
refused() {
  text=$1
  shift
  if "$@" > /dev/null 2> /root/said; then fail "$* was not refused"; fi
  grep -q "$text" /root/said || { cat /root/said >&2; fail "$* did not say: $text"; }
  tail -n 1 /root/said
}

# until_is TEXT COMMAND...: what it prints has TEXT in it.
until_is() {
  text=$1
  shift
  for _ in $(seq 1200); do
    if "$@" 2> /dev/null | grep -q -- "$text"; then return; fi
    sleep 0.1
  done
  fail "$* does not say: $text; it says: $("$@" 2>&1)"
}

until_ready() {
  for _ in $(seq 600); do
    if [ "$("$@" status 2> /dev/null | grep -c 'worker .*RUNNING')" = 2 ]; then return; fi
    sleep 0.1
  done
  fail "no flowd runs"
}

workers() {
  "$@" status -o json | tr '{' '\n' | sed -n 's/.*"role": "worker".*"pid": \([0-9]*\).*/\1/p'
}

ended() {
  for _ in $(seq 600); do
    state=$("$@" | sed -n 's/.*\(COMPLETED\|FAILED\|RUNNING\|PENDING\).*/\1/p' | head -n 1)
    if [ "$state" = COMPLETED ]; then return; fi
    sleep 0.1
  done
  fail "$* says $state"
}
