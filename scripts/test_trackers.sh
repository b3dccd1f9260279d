#!/usr/bin/env bash
# Test the loggers of Weights & Biases (offline) and MLflow with their own packages.
#
#   bash scripts/test_trackers.sh
#
# They are not in requirements.lock: MLflow wants other versions of locked packages. So they live in an
# environment of their own that sees the packages of .venv behind its own.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
environment=.venv-trackers
if [ ! -e "$environment/ready" ]; then
  .venv/bin/python -m venv "$environment"
  site=$("$environment/bin/python" -c "import site; print(site.getsitepackages()[0])")
  .venv/bin/python -c "import site; print(site.getsitepackages()[0])" > "$site/locked.pth"
  "$environment/bin/python" -m pip install --quiet "wandb>=0.31,<1" "mlflow-skinny>=3.17,<4" "sqlalchemy>=2,<3" "alembic>=1.20,<2"
  touch "$environment/ready"
fi
"$environment/bin/python" -m pytest tests/loggers/test_trackers.py "$@"
