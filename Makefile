# Nothing is needed before but Python >= 3.11, make and git.

# Candidates: the first that is new enough and can make a virtual environment is taken.
PYTHON ?= python3.13 python3.12 python3.11 python3
VENV ?= .venv
# PyPI's torch for Linux brings gigabytes of CUDA; this index has the CPU build of the same version.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Tests at a time, each with a server of its own: a number, or auto for one a core; 0 for a debugger.
WORKERS ?= 2
# Passed to pytest or to `pgvec demo`: make test ARGS="-k recall"
ARGS ?=

BIN := $(VENV)/bin
# Python compiles what is imported, when it is first imported: of torch that is the smaller part.
PIP = $(BIN)/python -m pip install --disable-pip-version-check --no-compile $(QUIET) -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE
# Errors only; `make QUIET= ...` shows everything.
QUIET ?= -qq

.PHONY: help demo test lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo-installed ## Install, then answer questions over the demo's documents
	@HF_HUB_OFFLINE=1 $(BIN)/pgvec demo $(ARGS)

test: lint ## Install, check, then run the tests (ARGS="..." goes to pytest)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

# mypy does not follow the import hook by which an editable install finds cli/, sql/ and
# migrations/, so it gets the layout of the wheel, made of links. New files are seen at once.
lint: $(VENV)/.test-installed ## Run ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@rm -rf $(VENV)/layout && mkdir -p $(VENV)/layout/pgvec_toolkit
	@ln -s "$(CURDIR)"/pgvec_toolkit/* "$(CURDIR)"/cli "$(CURDIR)"/migrations "$(CURDIR)"/sql $(VENV)/layout/pgvec_toolkit
	cd $(VENV)/layout && ../bin/mypy --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" -p pgvec_toolkit

clean: ## Remove the virtual environment and everything built
	@[ ! -e $(VENV)/.created ] || rm -rf $(VENV)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	@find pgvec_toolkit cli sql migrations tests -name __pycache__ -prune -exec rm -rf {} +

# A stamp, not bin/python: that one exists already when an interrupted creation left no pip.
$(VENV)/.created:
	@old=; for python in $(PYTHON); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    old=$${python##*/}; \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	    echo "Creating $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV) && touch $@; exit; \
	done; \
	if [ "$$old" ]; then \
	    echo "$$old cannot make virtual environments. On Debian and Ubuntu: apt install $$old-venv" >&2; \
	else \
	    echo "Python 3.11 or newer is needed; tried: $(PYTHON). Name another: make PYTHON=/path/to/python3" >&2; \
	fi; exit 1

# torch goes first and alone: everything else comes from the usual index.
$(VENV)/.torch-installed: $(VENV)/.created constraints.txt
	@echo "Installing pgvec-toolkit (a minute or two; with torch 1.6 GB on disk) ..."
	@index=; if [ "$$(uname)" = Linux ] && $(BIN)/python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' \
	    $(TORCH_INDEX)/torch/ 2>/dev/null; then index='--extra-index-url $(TORCH_INDEX)'; fi; \
	$(PIP) $$index torch || { echo 'pip failed; to see all it says: make QUIET= demo' >&2; exit 1; }
	@touch $@

$(VENV)/.demo-installed: $(VENV)/.torch-installed pyproject.toml constraints.txt
	@$(PIP) -e '.[embed]'
	@touch $@

# All that the demo needs, and more: it is not installed once without the rest.
$(VENV)/.test-installed: $(VENV)/.torch-installed pyproject.toml constraints.txt
	@echo "Installing what the tests need ..."
	@$(PIP) -e '.[embed,files,test]'
	@touch $(VENV)/.demo-installed $@
