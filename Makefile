# The commands of the README. Everything is installed into .venv; `make test` also wants Debian's
# rabbitmq-server and plastimatch, and installs them when it may.

PYTHON ?= python3
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Where it is set, each of the many processes of the tests would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test chaos vendor check bench lock sbom licences audit install system clean

demo: install
	$(BIN)/groundwire demo $(ARGS)

# Files in their own order: by size, the few long tests that start real processes would come last.
test: install system
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# All of it, with many more seeds and what takes long: SEEDS=300, from FIRST_SEED on. Hours.
SEEDS ?= 300
FIRST_SEED ?= 1000
chaos: install system
	GROUNDWIRE_SEEDS=$(SEEDS) GROUNDWIRE_FIRST_SEED=$(FIRST_SEED) \
		$(BIN)/python -m pytest -m "not vendor" --numprocesses $(WORKERS) $(ARGS)

# The vendors' own SDKs, unmodified, against the simulated platforms; installs them first (1 GB).
vendor: install
	$(BIN)/python -m pytest -m vendor $(ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install system
	$(BIN)/python -m tests.bench $(ARGS)

# Not compiled: most of it is never imported, and the rest is compiled when it is.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

install: $(INSTALLED)

$(INSTALLED): pyproject.toml requirements-dev.lock requirements-build.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed; name one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements-dev.lock
	$(PIP) --require-hashes -r requirements-build.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# A real RabbitMQ for the tests, which start and stop it themselves, on loopback; and plastimatch.
system:
	@{ ls /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server && command -v plastimatch; } \
		>/dev/null 2>&1 || deploy/install-test-servers

# Pins every package with its hashes, for running and for developing; names no index.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) pyproject.toml --upgrade --output-file requirements.lock
	$(LOCK) pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) --group build --upgrade --output-file requirements-build.lock

# What the image is made of, for whoever has to know: read from the lock, without a network.
sbom licences: install
	$(BIN)/python deploy/sbom.py $@

# Known advisories against what is locked, for running and for developing. Needs a network: the
# advisories are PyPI's. A package that nobody could be asked about is a failure.
AUDIT := .venv-audit
audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements-dev.lock
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements-build.lock

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
