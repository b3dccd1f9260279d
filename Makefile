# `make train` and `make test` set everything up first, on a fresh Debian or Ubuntu machine too.
EXPERIMENT ?=
ARGS ?=
RUNS ?=
VENV_PYTHON := .venv/bin/python
comma := ,
space := $(subst x,,x x)
BENCHES := state_vs_sb3 envs render replay update overhead profile_round startup safety scaling contention gpu

.DEFAULT_GOAL := help
.PHONY: help setup train demo report results test test-full bench check

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## virtual environment, locked packages, system GL libraries (the others call it)
	@bash scripts/setup.sh

train: setup ## what suits this machine, or EXPERIMENT=name; ARGS="seed=1 total_env_steps=100000" override
	$(VENV_PYTHON) src/train.py $(EXPERIMENT:%=experiment=%) $(ARGS)

# The policy's files are in the repository: nothing is trained, and nothing is written but logs/demo.
demo: setup ## play a published policy that sees: success with its interval, and a video
	$(VENV_PYTHON) src/evaluate.py policy=docs/results/pixel_push_laptop/seed0/policy out=logs/demo \
		episodes=20 video=true $(ARGS)

report: setup ## a page on runs: RUNS=logs/state_reach, a folder, glob or [list], or several words
	$(VENV_PYTHON) src/report.py $(if $(word 2,$(RUNS)),'runs=[$(subst $(space),$(comma),$(strip $(RUNS)))]',$(RUNS:%=runs=%)) $(ARGS)

results: setup ## the table of docs/results.md, from the files in docs/results
	$(VENV_PYTHON) scripts/results.py

test: setup ## all tests but the long ones, at most 10 minutes on 2 cores
	$(VENV_PYTHON) -m pytest -n 2 --dist worksteal -m "not full"

test-full: setup ## the long tests that `make test` leaves out
	$(VENV_PYTHON) -m pytest -m full

# One process after the other; a missed target is a row with "ok": false, only a crash is a failure.
bench: setup ## all benchmarks, a JSON line per row; ARGS=--quick for the short version
	@failed=; for bench in $(BENCHES); do \
		$(VENV_PYTHON) scripts/bench/$$bench.py $(ARGS) || failed="$$failed $$bench"; \
	done; test -z "$$failed" || { echo "crashed:$$failed" >&2; exit 1; }

check: setup ## lint, format, types, spelling: what pre-commit and the tests' gate run
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(VENV_PYTHON) -m codespell_lib
