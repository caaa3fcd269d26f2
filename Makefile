# Everything runs in .venv, which is made from the lock files at first use and again when they change.

VENV := .venv
BIN := $(VENV)/bin
CANDIDATES := python3.13 python3.12 python3.11 python3.14 python3
PYTHON ?=
ARGS ?=

# pip-compile must see PyPI alone: what a machine's own configuration adds would end up in the lock.
COMPILE := env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/python -m piptools compile --quiet --no-config --generate-hashes \
	--strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
DEV_GROUP := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")

# What an environment was made from: a stamp that says the same means that there is nothing to do.
MADE_FROM = { pwd; cat $(1) pyproject.toml; }
IS_CURRENT = $(MADE_FROM) 2>/dev/null | cmp -s - $(VENV)/$(1).stamp

# Looked for only when there is no environment yet.
FIND_PYTHON = for p in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done; true
NO_PYTHON = MINOOTS needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not that,none of $(CANDIDATES) is); \
	install one, or name it: make PYTHON=/path/to/python3
NO_VENV = this Python cannot make an environment; on Debian and Ubuntu: apt install python3-venv
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check

# $(call INSTALL,the lock,the stamps that it is good for: the development lock holds the other one)
define INSTALL
	@$(IS_CURRENT) || { set -e; \
		if ! test -x $(BIN)/python; then \
			python=$$($(FIND_PYTHON)); \
			test -n "$$python" || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
			echo "Making $(VENV) with $$python"; \
			"$$python" -m venv $(VENV) || { rm -rf $(VENV); echo "$(NO_VENV)" >&2; exit 1; }; \
		fi; \
		echo "Installing $(1)"; \
		$(PIP) install --require-hashes -r $(1); \
		$(PIP) install --no-deps --no-build-isolation -e .; \
		for lock in $(2); do { pwd; cat $$lock pyproject.toml; } > $(VENV)/$$lock.stamp; done; }
endef

.DEFAULT_GOAL := help
.PHONY: help up test bench check proto lock clean runtime development

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|' 2>/dev/null \
		|| grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST)

up: runtime ## run everything on this machine; Ctrl-C stops it (ARGS="--data-dir DIR")
	@exec $(BIN)/minoots up $(ARGS)

test: development ## run the tests, three files at a time (ARGS="-k NAME")
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

coverage: development ## run the tests and show the coverage; takes half as long again
	@$(BIN)/python -m coverage erase
	@status=0; $(BIN)/python -m coverage run -m pytest $(ARGS) || status=$$?; \
		$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage report; exit $$status

bench: development ## measure (ARGS="fire", ARGS="lateness --rate 4000 --plot lateness.png")
	@$(BIN)/minoots bench $(ARGS)

check: development ## format, lint, types, import rules, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

proto: development ## generate minoots/rpc/pb from proto/
	$(BIN)/python proto/generate.py

lock: ## resolve the lock files anew (ARGS=--upgrade takes newer versions)
	@test -x $(BIN)/pip-compile || $(MAKE) --no-print-directory development
	$(COMPILE) $(ARGS) --extra embedded --extra mcp --build-deps-for editable --output-file requirements.lock pyproject.toml
	$(BIN)/python -c '$(DEV_GROUP)' | $(COMPILE) $(ARGS) --output-file requirements-dev.lock requirements.lock -

clean: ## remove the environment and caches; the data in .minoots stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache htmlcov .coverage .coverage.* dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

runtime:
	$(call INSTALL,requirements.lock,requirements.lock)

development:
	$(call INSTALL,requirements-dev.lock,requirements.lock requirements-dev.lock)
