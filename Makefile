# Everything that people do in this repository. Nothing needs to be activated or prepared: what a target needs is
# installed into .venv first (once; a second call is quick). ARGS go to the command: make demo ARGS="--no-fault".
#
#   make demo           the whole loop on real flights, in under a minute after installation
#   make test           install what the tests need, and run them
#   make soak           replays of a minute and more, which make test leaves out
#   make check          format, lint, types, layers
#   make up             pages on port 7070, predictions on port 7071
#   make bench          measure this machine; the last line is JSON
#   make bench-data     data sets beside the tools that do the same: versions, contracts, profiles, streaming, sources, catalogue
#   make bench-features training sets, look-ups and materialisation beside Feast
#   make bench-experiments  wrong verdicts of simulated experiments, the cost of a look and of a draw by context
#   make bench-serving  predictions beside FastAPI + uvicorn, MLServer and mlflow models serve
#   make bench-tracking  runs, metrics and searches over MLflow's protocol beside MLflow's own server
#   make requirements   pin the newest versions that pyproject allows
#   make reference      write docs/reference.md from the code
#   make services       install PostgreSQL, Redis and Chromium, which some tests use
#   make clients        install MLflow's clients of both lines, each in its own environment, which some tests use
#   make clean          remove what was built here

PYTHON ?= python3
ARGS ?=
TEST_LIMIT_S ?= 1800

.DEFAULT_GOAL := help
.PHONY: help compiled demo test check up bench bench-data bench-experiments bench-features bench-serving bench-tracking soak requirements reference services clients clean

help:
	@sed -n '1,/^$$/ s/^# \{0,1\}//p' Makefile

demo: .venv/demo.stamp compiled
	@.venv/bin/flyball demo $(ARGS)

up: .venv/demo.stamp compiled
	@.venv/bin/flyball up $(ARGS)

test: .venv/dev.stamp compiled services clients
	@timeout --foreground --signal=INT --kill-after=20 $(TEST_LIMIT_S) \
		.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/dev.stamp
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/dev.stamp
	@.venv/bin/python -m benchmarks.system $(ARGS)

bench-data: .venv/dev.stamp
	@for part in versions contracts profiles streaming sources catalogue; do .venv/bin/python -m benchmarks.data_$$part $(ARGS) || exit 1; done

bench-features: .venv/dev.stamp services
	@for part in training online; do .venv/bin/python -m benchmarks.features_$$part $(ARGS) || exit 1; done

bench-experiments: .venv/dev.stamp
	@.venv/bin/python -m benchmarks.experiments $(ARGS)

bench-serving: .venv/dev.stamp
	@.venv/bin/python -m benchmarks.serving $(ARGS)

soak: .venv/dev.stamp compiled services clients
	@.venv/bin/python -m pytest soak $(ARGS)

bench-tracking: .venv/dev.stamp services
	@.venv/bin/python -m benchmarks.tracking $(ARGS)

# Bytecode of the package, once: where Python is told to write none, every process would compile 800 modules anew.
compiled:
	@.venv/bin/python -m compileall -q flyball

requirements: .venv/dev.stamp
	.venv/bin/python scripts/requirements.py

reference: .venv/dev.stamp
	.venv/bin/python scripts/reference.py

services:
	@scripts/services.sh

clients: .venv/dev.stamp
	@scripts/clients.sh mlflow2 mlflow3

clean:
	rm -rf .venv build dist flyball.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis flyball-demo
	find flyball tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/%.stamp: requirements/%.txt pyproject.toml scripts/venv.sh
	@scripts/venv.sh "$(PYTHON)" requirements/$*.txt
	@touch $@
