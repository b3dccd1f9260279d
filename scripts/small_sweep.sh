# Sourced by what checks a launcher: a sweep of short runs, one of them met in the middle, and whether
# two sweeps are the same.
# shellcheck shell=bash

readonly SMALL=(debug=default total_env_steps=120 algo.batch_size=3 algo.utd_ratio=0.25
  task.max_episode_steps=5 collect.n_envs=2 collect.workers=1 collect.learning_starts=20
  replay.capacity=30 replay.margin_env_steps=30 callbacks.evaluation.every_env_steps=40
  callbacks.evaluation.episodes=2 trainer=cpu trainer.threads=1)
PYTHON=${PYTHON:-.venv/bin/python}

say() { printf 'check     %s\n' "$*"; }

hashes() { # of all runs in a folder
  local run
  for run in "$1"/*/; do
    "$PYTHON" scripts/run_hash.py "$run" | grep '"H"' | sed "s|^|$(basename "$run")|"
  done
}

require_same() { # two folders of runs
  say "the runs are those of the undisturbed sweep:"
  diff <(hashes "$1") <(hashes "$2")
  hashes "$2"
}

freeze_one() { # a process of a run in folder $1 that has learned and is not finished; it waits for CONT
  local lock folder pid
  for lock in "$1"/*/.lock; do
    folder=$(dirname "$lock")
    compgen -G "$folder/checkpoints/step_*[1-9]*" >/dev/null || continue
    read -r _ pid _ <"$lock"
    tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "${2:-.*}" || continue
    kill -STOP "$pid" || continue
    if [ ! -e "$folder/summary.json" ]; then echo "$pid" && return; fi
    kill -CONT "$pid"
  done 2>/dev/null
}
