#!/usr/bin/env bash
# What a host with a CUDA GPU can tell about this project in nine minutes, in stages: versions and
# renderer; captured against eager updates; SIGTERM and exact resume; profile of an update, and
# variants of it; frames/s; whole training at 16, 32 and 64 environments; the cost of determinism;
# then a real run until the time is over.
#
#   bash scripts/gpu_check.sh OUT [SECONDS]     540 unless given
#
# OUT gets rows.jsonl (a JSON line for each figure, as it comes, and one for each stage), log.txt,
# and the real run's config.yaml, metrics.csv, evaluation.json, summary.json and best checkpoint.
# Nothing is written elsewhere, apart from the system's temporary folder.
#
# Each stage is a process of its own with a share of the time; it cannot end the others. The exit
# status is 1 if a stage failed, ran out of time or could not begin any more, and the last lines
# name them. A missed target is a row with "ok": false, not a failure.
#
# Without a CUDA device the same path is rehearsed at toy size (300 s unless given).
# PYTHON chooses the interpreter; otherwise .venv/bin/python if there is one, else python3.
set -uo pipefail

readonly EXPERIMENT=pixel_push_strict_gpu
readonly KILL_AFTER=10 # seconds between SIGTERM and SIGKILL

usage() {
  echo "error: $1; usage: bash scripts/gpu_check.sh OUT [SECONDS]" >&2
  exit 2
}

[ $# = 1 ] || [ $# = 2 ] || usage "$# arguments"
[ -n "$1" ] || usage "OUT is empty: expected a folder for the results"
[[ "${2:-1}" =~ ^[1-9][0-9]{0,5}$ ]] || usage "SECONDS=$2: expected a positive whole number"
[ ! -e "$1/rows.jsonl" ] || usage "OUT=$1: expected a folder without an earlier check's rows.jsonl"
if ! { mkdir -p "$1" && out=$(cd "$1" && pwd -P) && : >"$out/rows.jsonl"; } 2>/dev/null; then
  usage "OUT=$1: expected a folder that can be written"
fi
rows=$out/rows.jsonl log=$out/log.txt

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=${PYTHON:-python3}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python

# Compilers' and drivers' caches too: a home folder may be read-only, and stays as it was.
scratch=$(mktemp -d) || exit 1
export TMPDIR=$scratch XDG_CACHE_HOME=$scratch/cache CUDA_CACHE_PATH=$scratch/cuda
export TRITON_CACHE_DIR=$scratch/triton TORCHINDUCTOR_CACHE_DIR=$scratch/inductor
export PYTHONUNBUFFERED=1

group='' # of the stage that runs
finish() {
  [ -z "$group" ] || kill -KILL -- "-$group" 2>/dev/null
  rm -rf "$scratch"
}
stopped() { # the host wants its machine back: let the stage end by itself, then leave
  trap '' TERM INT HUP
  if [ -n "$group" ]; then
    kill -TERM -- "-$group" 2>/dev/null
    wait "$group"
  fi
  echo "gpu_check: stopped by a signal after $SECONDS s" | tee -a "$log" >&3
  exit 1
}
exec 3>&2 # a signal comes while a stage's standard error goes to the log
trap finish EXIT
trap stopped TERM INT HUP

look='import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")'
if ! card=$(timeout --kill-after="$KILL_AFTER" 120 "$python" -c "$look" 2>>"$log"); then
  echo "error: PYTHON=$python: expected an interpreter that imports torch; see $log" >&2
  exit 2
fi
if [ -n "$card" ]; then
  budget=${2:-540} sizes=(16 32 64) options=()
  echo "gpu_check: $card, $budget s" | tee -a "$log"
else
  budget=${2:-300} sizes=(4) options=(--rehearse)
  echo "gpu_check: rehearsal, no CUDA device: the figures mean nothing; $budget s" | tee -a "$log"
fi

failed=()
report() { # STAGE OK NOTE: the stage's own row
  printf '{"name": "stage", "stage": "%s", "ok": %s, "at_s": %d, "note": "%s"}\n' "$1" "$2" "$SECONDS" "$3" >>"$rows"
  printf 'gpu_check: %4d s  %-12s %s\n' "$SECONDS" "$1" "$3" | tee -a "$log"
  [ "$2" = true ] || failed+=("$1 ($3)")
}

stage() { # NAME PERCENT ROWS [ARGUMENTS]: run rows of scripts/bench/gpu.py in a share of the time
  local name=$1 limit=$((budget * $2 / 100)) left=$((budget - SECONDS - KILL_AFTER)) code before began=$SECONDS
  if [ "$left" -lt 1 ] || [ "$left" -lt $((limit / 2)) ]; then
    report "$name" false "not begun: too little time is left"
    return
  fi
  # The last one takes what is left.
  if [ "$name" = run ] || [ "$limit" -gt "$left" ]; then limit=$left; fi
  [ "$limit" -ge 1 ] || limit=1
  before=$(wc -l <"$rows")
  # timeout leads a process group of its own, with all that the stage starts in it.
  timeout --kill-after="$KILL_AFTER" "$limit" "$python" scripts/bench/gpu.py --rows "$3" \
    --experiment "$EXPERIMENT" --seconds $((limit - limit / 10)) "${options[@]}" "${@:4}" >>"$rows" 2>>"$log" &
  group=$!
  { wait "$group"; } 2>>"$log" # the shell tells of a killed process
  code=$?
  kill -KILL -- "-$group" 2>/dev/null
  group=''
  rm -rf "${scratch:?}"/tmp* # what a killed stage left there
  # 137 is timeout's own SIGKILL, or the kernel's where memory ran out.
  if [ "$code" = 124 ] || { [ "$code" = 137 ] && [ $((SECONDS - began)) -ge "$limit" ]; }; then
    report "$name" false "no end within $limit s"
  elif [ "$code" != 0 ]; then
    report "$name" false "failed with exit status $code"
  elif [ "$(wc -l <"$rows")" = "$before" ]; then
    report "$name" false "wrote no row"
  else
    report "$name" true "done"
  fi
}

stage versions 15 versions
stage toy 15 toy,graphs
stage resume 35 resume
stage profile 15 updates
stage variants 25 variants
stage frames 15 frames
for n in "${sizes[@]}"; do
  stage "training-$n" 12 training --envs "$n" --seconds $((budget * 2 / 27)) # 40 of 540
done
stage determinism 15 determinism
stage run 10 run --out "$out"

missed=$(grep -v '"name": "stage"' "$rows" | grep '"ok": false' | cut -d '"' -f 4 | sort -u | paste -sd ' ' -)
[ -z "$missed" ] || echo "gpu_check: short of their targets: $missed" | tee -a "$log"
if [ ${#failed[@]} -gt 0 ]; then
  printf 'gpu_check: failed: %s\n' "${failed[@]}" | tee -a "$log" >&2
  exit 1
fi
echo "gpu_check: every stage is done after $SECONDS s; rows in $rows" | tee -a "$log"
