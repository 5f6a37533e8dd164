# make demo    the whole loop on this machine: train, measure, fit, roll out, refuse what is bad
# make test    everything that must hold before a change lands
# make test-pythons   the agent's unit tests on Python 3.10, 3.11 and 3.13, those that are here
# make test-arm   the agent's wheel on emulated 64- and 32-bit ARM (root, qemu-user-static, mmdebstrap)
# make bench-delivery   how fast an artifact arrives, side by side
# make bench-compressor   our post-training quantization beside other tools'
# make third-party   models that nobody here made, through inspect, the ladder and compare
# make examples    every technique on every example task, as tables in their READMEs
# make bench-agent      whether the agent measures right, and what it costs itself
# make soak    kill -9 a real agent in real updates, N=2000 times; one whole model every time
#
# Needs Python 3.11 or newer and make. Everything else is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
PIPLOG := 2>$(VENV)/pip.log || { cat $(VENV)/pip.log >&2; exit 1; }

# Test files run side by side; most of the longer ones wait for processes.
JOBS   ?= 2

export ORT_DISABLE_TELEMETRY = 1

# Modules that decide and do no I/O: they are held to a higher coverage than the rest.
PURE := protocol/trimtab_protocol/*,agent/trimtab_agent/window.py,agent/trimtab_agent/reconcile.py,agent/trimtab_agent/admission.py,agent/trimtab_agent/probe_verdict.py,agent/trimtab_agent/hook_rules.py,agent/trimtab_agent/in_use_verdict.py,agent/trimtab_agent/local/histogram.py,agent/trimtab_agent/local/holds.py,agent/trimtab_agent/records.py,agent/trimtab_agent/measure/statistics.py,agent/trimtab_agent/energy/windows.py,compressor/trimtab_compressor/search/*,compressor/trimtab_compressor/budgets.py,compressor/trimtab_compressor/verdicts.py,deploy/trimtab_deploy/engine/*

.DELETE_ON_ERROR:
.PHONY: demo test test-arm test-pythons check lint types layers pytest coverage bench-delivery bench-agent bench-compressor third-party examples soak constraints clean

demo: $(VENV)/.demo-ready
	@$(BIN)/python examples/demo/run.py

test: check pytest coverage

check: lint types layers

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

types: $(VENV)/.test-ready
	$(BIN)/mypy protocol agent compressor deploy tests examples/demo examples/mnist examples/animals examples/text examples/speech examples/large_cnn examples/transfer examples/application examples/tables.py bench

layers: $(VENV)/.test-ready
	$(BIN)/lint-imports

pytest: $(VENV)/.test-ready
	$(BIN)/coverage erase
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile --cov --cov-report= $(PYTEST_ARGS)

coverage:
	@echo "pure modules (branch coverage, at least 95 %):"
	@$(BIN)/coverage report --include='$(PURE)' --fail-under=95 --format=total
	@echo "all of it (branch coverage, at least 85 %):"
	@$(BIN)/coverage report --fail-under=85 --format=total

test-arm: $(VENV)/.test-ready
	@PYTHON=$(BIN)/python tests/arm/build_tree.sh aarch64
	@PYTHON=$(BIN)/python tests/arm/build_tree.sh armv7l
	$(BIN)/pytest -q tests/arm

test-pythons:
	@JOBS=$(JOBS) $(PYTHON) tests/pythons.py

bench-delivery: $(VENV)/.test-ready
	@$(BIN)/python bench/delivery.py

# Options go into BENCH: make bench-agent BENCH="--pairs 2 --idle-s 20"
bench-agent: $(VENV)/.test-ready
	@$(BIN)/python bench/agent.py $(BENCH)

bench-compressor: $(VENV)/.test-ready
	@$(BIN)/python bench/compressor.py $(BENCH)

third-party: $(VENV)/.test-ready
	@$(BIN)/python bench/third_party.py $(BENCH)

# One example, or options: make examples EXAMPLE="mnist --formats onnx"
examples: $(VENV)/.test-ready
	@$(BIN)/python examples/tables.py $(EXAMPLE)

soak: $(VENV)/.test-ready
	@$(BIN)/python bench/soak.py

$(VENV)/.demo-ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3.11 and no python3 on PATH: install Python 3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11; give a newer one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "installing into $(VENV) (about 2.5 GB, one to three minutes)…"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt -e '.[onnx,tflite,compressor,deploy]' $(PIPLOG)
	@touch $@

$(VENV)/.test-ready: $(VENV)/.demo-ready
	@$(PIP) install -c constraints.txt -e '.[onnx,tflite,compressor,deploy,dev]' $(PIPLOG)
	@touch $@

# The versions that are tested together, from a fresh environment.
constraints:
	$(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/pip install -q -e '.[onnx,tflite,compressor,dask,keras,deploy,dev]'
	{ echo '# Versions that were tested together; `make` installs with them. Made by `make constraints`.'; \
	  .venv-constraints/bin/pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.txt
	rm -rf .venv-constraints

clean:
	rm -rf $(VENV) .venv-py .arm demo-out .mypy_cache .ruff_cache .pytest_cache .coverage*
