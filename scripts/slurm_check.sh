#!/usr/bin/env bash
# Does launcher=slurm keep its promise here? A small sweep on two nodes, one of which is killed, one
# job requeued, must end with the files of the same sweep on this machine.
#
#   bash scripts/slurm_check.sh DIR [-m OVERRIDE ...]    default: sweep=factorial_drq_ss seed=0
#
# As root, on a machine without a SLURM of its own: scripts/slurm_cluster.sh starts one in DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DIR=$(mkdir -p "${1:?a folder}" && cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- -m sweep=factorial_drq_ss seed=0
source scripts/small_sweep.sh

running() { squeue --noheader --states=RUNNING --format=%A | head -n 1; }

eval "$(bash scripts/slurm_cluster.sh start "$DIR/slurm")"
trap 'bash scripts/slurm_cluster.sh stop "$DIR/slurm"' EXIT

say "undisturbed, on this machine"
"$PYTHON" src/train.py "$@" "${SMALL[@]}" run_dir="$DIR/local"

say "on the cluster"
"$PYTHON" src/train.py "$@" "${SMALL[@]}" run_dir="$DIR/cluster" launcher=slurm launcher.poll_s=1 &
readonly SWEEP=$!
until pid=$(freeze_one "$DIR/cluster") && [ -n "$pid" ]; do
  kill -0 "$SWEEP"
  sleep 0.1
done
node=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^SLURMD_NODENAME=//p')
say "kill -9 of node $node and of what runs there"
bash scripts/slurm_cluster.sh kill "$DIR/slurm" "${node#n}"
until job=$(running) && [ -n "$job" ]; do sleep 0.2; done
say "requeue job $job in mid-run"
scontrol requeue "$job"
sleep 12 # the controller has missed the node by then
bash scripts/slurm_cluster.sh node "$DIR/slurm" "${node#n}"
wait "$SWEEP"

require_same "$DIR/local" "$DIR/cluster"
