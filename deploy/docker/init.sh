#!/usr/bin/env bash
# Airflow's database and its one user, and the ledger, before anything of Airflow starts. May be repeated.
set -euo pipefail

airflow db migrate

# Airflow would make up a password and print it to its log; this is the one from .env. Only the API server reads it.
umask 077
python - <<'PYTHON'
import json
import os
from pathlib import Path

file = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
user = os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].partition(":")[0]
made = file.with_suffix(".new")
made.write_text(json.dumps({user: os.environ["ADMIN_PASSWORD"]}) + "\n")
made.replace(file)
PYTHON

python -m deploy.docker.ledger_database
python -m ownership.ledger upgrade
