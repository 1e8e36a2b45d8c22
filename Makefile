# Two commands do everything on a machine with Python 3.11 or newer and make: `make demo` and `make test`.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# uv trusts what the system trusts, as pip does.
export UV_SYSTEM_CERTS := 1
NODE_PROJECTS := clients/web clients/examples/agents/typescript
NODE_MODULES := $(NODE_PROJECTS:%=%/node_modules/.package-lock.json)

.PHONY: demo test test-fast lint check fix generate bench clean

demo: .venv/.runtime ## Run a flow on a real photo, from nothing to the answer
	@$(BIN)/mediamesh demo

test: .venv/.dev $(NODE_MODULES) ## Run the whole suite, fast tests first
	$(BIN)/pytest -q -n 3 -m "not stack"
	$(BIN)/pytest -v -m stack
	cd clients/web && npm test

test-fast: .venv/.dev ## Run the tests that need no stack and no browser, nor much time
	$(BIN)/pytest -q -n 3 -m "not stack and not slow"

lint: .venv/.dev $(NODE_MODULES) ## Lint, types, imports, contracts, freshness of generated code
	$(BIN)/poe -q lint
	$(BIN)/poe -q breaking
	$(BIN)/poe -q fresh
	cd clients/web && npm run check && npm run check:fresh

check: lint test-fast ## All that should hold before a commit

fix: .venv/.dev ## Format everything
	$(BIN)/poe -q fix

generate: .venv/.dev $(NODE_MODULES) ## Regenerate generated/ from proto/ and clients/web/
	$(BIN)/poe -q generate
	cd clients/web && npm run build

bench: .venv/.dev ## Measure: prints tables, writes plots to .mediamesh/benchmarks
	$(BIN)/poe -q bench

clean: ## Remove everything that the other targets made
	rm -rf .venv .mediamesh $(NODE_PROJECTS:%=%/node_modules) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in seconds; where it cannot, pip does the work, and says what is wrong.
define install
	@echo "setting up .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c deploy/constraints.txt $(1) 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet -c deploy/constraints.txt $(1)
	@touch $@
endef

.venv/.runtime: pyproject.toml deploy/constraints.txt
	$(call install,-e '.[all]')

.venv/.dev: pyproject.toml deploy/constraints.txt
	$(call install,-e '.[all]' --group dev)
	@touch .venv/.runtime

# Node and npm come from PyPI with the dev group; a host's own are not needed and not used.
$(NODE_MODULES): %/node_modules/.package-lock.json: %/package-lock.json .venv/.dev
	cd $* && npm ci --no-fund --no-audit --loglevel=error
	touch $@
