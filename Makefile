# The commands of this repository; `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help venv demo up cluster down rehearse-switch-over test matrix tools bench chaos soak simulate ablate crashpoints operator fuzz audit lint lock clean

PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9
STAMP := .venv/.complete

# Python's bytecode cache halves every start of Airflow.
unexport PYTHONDONTWRITEBYTECODE

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*## /|/' | awk -F'|' '{printf "  make %-7s %s\n", $$1, $$2}'

demo: $(STAMP) ## start everything, play a sample world with real events, and run until Ctrl-C
	@$(BIN)/python -m local demo

up: $(STAMP) ## start the servers, stand-ins and Airflow, and leave them running; KAFKA=host:port, LMS=URL, … use yours instead
	@$(BIN)/python -m local up

cluster: $(STAMP) ## start two or more of everything, as in production, on 12 GiB; STORES=small: one node of each store
	@$(BIN)/python -m local cluster

down: ## stop what `make up` or `make cluster` started
	@if [ -e $(STAMP) ]; then $(BIN)/python -m local down; else echo "Nothing was running."; fi

rehearse-switch-over: $(STAMP) ## play the way from the old job to this one and back, on a stack of its own; about 3 minutes
	@$(BIN)/python -m local rehearse-switch-over

test: $(STAMP) ## run all tests, on real servers and a real Airflow; ARGS="tests/unit -k lanes" runs a part
	@$(BIN)/python -m pytest -n 2 $(ARGS)

matrix: $(STAMP) ## run the tests that depend on the stores, and a chaos round, on each server; ARGS="opensearch2 cassandra311"
	@$(BIN)/python -m local.matrix $(ARGS)

# Each step has a time limit, and none fails the target: where a program is missing, tests skip with that reason.
tools: $(STAMP) ## install programs that some tests and the cluster use: Chromium (as root), promtool, receivers of metrics, pgbouncer, Redis, HAProxy, helm, kubeconform
	@$(BIN)/python -m local.tools

bench: $(STAMP) ## measure the job beside the floors of this machine, about 10 minutes; ARGS="--only burst --relay 1 --stream 10"
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(STAMP) ## break real processes at random, and compare the outcome with a replay in plain Python; SEED=7 MINUTES=10 CLUSTER=1
	@$(BIN)/python -m chaos $(if $(CLUSTER),--cluster) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

soak: $(STAMP) ## a steady load for hours with a fault every ten minutes, checked and measured while it runs; HOURS=8 SEED=7
	@$(BIN)/python -m chaos --soak $(or $(HOURS),8) $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate: $(STAMP) ## the real stages in simulated worlds of seeds, where one actor moves at a time; SEEDS=2000 SEED=1; a story: SEED=7 SEEDS=1 ARGS=--story
	@PYTHONPATH=plugins $(BIN)/python -m simulation --seeds $(or $(SEEDS),2000) --seed $(or $(SEED),1) $(ARGS)

crashpoints: $(STAMP) ## small worlds with a death before and after each call, about 30 minutes; ARGS=smallest, ARGS="single --world undo"
	@PYTHONPATH=plugins $(BIN)/python -m simulation.crashpoints $(ARGS)

operator: $(STAMP) ## an operator's orders, drawn, beside a model of what must come of them; STORIES=1000 SEED=1
	@PYTHONPATH=plugins $(BIN)/python -m simulation.operator --stories $(or $(STORIES),1000) --seed $(or $(SEED),1) $(ARGS)

ablate: $(STAMP) ## take each guard out of the job in turn: the simulated worlds must go wrong; SEEDS=2000 ARGS="'the whole condition'"
	@PYTHONPATH=plugins $(BIN)/python -m simulation --seeds $(or $(SEEDS),2000) --ablate $(ARGS)

fuzz: $(STAMP) ## make near-valid messages, confs, settings and answers, and count the outcomes; MESSAGES=100000
	@FUZZ_MESSAGES=$(or $(MESSAGES),100000) $(BIN)/python -m pytest tests/fuzz -q --timeout 0 --show-capture no $(ARGS)

lint: $(STAMP) ## ruff, mypy, which folder imports which, and the compose file's schema
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=plugins $(BIN)/lint-imports --no-cache
	@if [ -f docker-compose.yml ]; then $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/docker/platform.yml; fi

audit: $(STAMP) ## list known vulnerabilities of the pinned packages, except those judged in .ci/audit.toml
	@$(BIN)/python -m local.tools.audit

venv: $(STAMP) ## create the Python environment in .venv

$(STAMP): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=, as in: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python has no venv; install it (Debian, Ubuntu: apt-get install python3-venv)."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the Python packages into .venv (the first time takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode \
	  --requirement requirements.txt --requirement requirements-dev.txt
	@touch $@

lock: $(STAMP) ## compile the requirement files and the servers' lock files again
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 requirements.in -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 requirements-dev.in -o requirements-dev.txt
	for lock in local/servers/*/*/jgo.toml; do \
	  (cd $$(dirname $$lock) && $(CURDIR)/$(BIN)/jgo --resolver python --timeout 60 sync --force && \
	   mv .jgo/jgo.lock.toml . && rm -rf .jgo) || exit 1; done

clean: down ## stop everything, and delete what was made except the Python environment
	rm -rf .local .mypy_cache .pytest_cache .ruff_cache .hypothesis
