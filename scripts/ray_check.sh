#!/usr/bin/env bash
# Does launcher=ray keep its promise here? A small sweep on a cluster of two raylets, one of which is
# killed in mid-run, must end with the files of the same sweep on this machine without Ray.
#
#   bash scripts/ray_check.sh DIR [-m OVERRIDE ...]    default: sweep=leak seed=0
#
# PYTHON is an interpreter with fetchlab[ray]. Ray's own files are in a temporary folder, and go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DIR=$(mkdir -p "${1:?a folder}" && cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- -m sweep=leak seed=0
source scripts/small_sweep.sh
readonly RAY=$(mktemp -d) ADDRESS=127.0.0.1:6399 # a socket's path has at most 107 characters

node() { # start one of two cores, room for one run; $NODE is its process
  local log
  log=$(mktemp -p "$RAY")
  "$PYTHON" -m ray.scripts.scripts start --block --num-cpus=2 --min-worker-port=0 --max-worker-port=0 --object-store-memory=80000000 \
    --node-ip-address=127.0.0.1 --temp-dir="$RAY" --disable-usage-stats "$@" >"$log" 2>&1 &
  NODE=$!
  until grep -q "runtime started" "$log"; do
    kill -0 $NODE || { cat "$log" && false; }
    sleep 0.5
  done
}

raylet() { # of this `ray start`
  local child
  for child in $(cat "/proc/$1/task/$1/children"); do
    [ "$(cat "/proc/$child/comm")" != raylet ] || echo "$child"
  done
}

stop() {
  kill $(jobs -p) || true
  wait || true
  rm -r "$RAY"
} 2>/dev/null

say "undisturbed, on this machine"
"$PYTHON" src/train.py "$@" "${SMALL[@]}" run_dir="$DIR/local"

say "on a cluster of two raylets"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$("$PYTHON" -c "import secrets; print(secrets.token_hex())")
trap stop EXIT
node --head --port="${ADDRESS#*:}" --include-dashboard=false
readonly HEAD=$NODE
node --address="$ADDRESS"
readonly SECOND=$NODE
"$PYTHON" src/train.py "$@" "${SMALL[@]}" run_dir="$DIR/cluster" launcher=ray launcher.address="$ADDRESS" &
readonly SWEEP=$!
readonly RAYLET=$(raylet $SECOND)
until pid=$(freeze_one "$DIR/cluster" "RAY_RAYLET_PID=$RAYLET") && [ -n "$pid" ]; do
  kill -0 $SWEEP
  sleep 0.1
done
say "kill -9 of the raylet under a run in the middle"
kill -9 "$RAYLET"
kill -CONT "$pid"
wait $SWEEP

require_same "$DIR/local" "$DIR/cluster"
