#!/bin/sh
# Write .env for docker-compose.yml: env.example with secrets made here. An existing file is left as it is.
#
#     sh deploy/docker/make-env.sh [file]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/../../.env}
if [ -e "$target" ]; then
  echo "$target exists; move it away to make new secrets (data that Airflow encrypted needs the old fernet key)." >&2
  exit 1
fi

fernet_key() {
  head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'
}

# $1 random bytes as hexadecimal digits: they need no escaping in a URL or on a command line.
secret() {
  head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'
}

umask 077
made=$target.new
while IFS= read -r line; do
  case $line in
    AIRFLOW_FERNET_KEY=) printf '%s%s\n' "$line" "$(fernet_key)" ;;
    AIRFLOW_JWT_SECRET=) printf '%s%s\n' "$line" "$(secret 64)" ;;
    AIRFLOW_SECRET_KEY= | LEDGER_PASSWORD= | POSTGRES_PASSWORD= | REDIS_PASSWORD=) printf '%s%s\n' "$line" "$(secret 32)" ;;
    AIRFLOW_ADMIN_PASSWORD=) printf '%s%s\n' "$line" "$(secret 12)" ;;
    *) printf '%s\n' "$line" ;;
  esac
done <"$here/env.example" >"$made"
mv "$made" "$target"
echo "Wrote $target. Airflow's user is admin, the password is AIRFLOW_ADMIN_PASSWORD there."
