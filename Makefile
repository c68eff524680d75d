# make demo | test | lint | docs | bench | clean        everything happens in .venv, made on first use
#
# TORCH   what pip is asked for; a CPU build: TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
# PYTHON  the interpreter that .venv is made from
# WORKERS how many processes share the tests: a number, or auto for one a core
# ARGS    more arguments for pytest, the demo or the benchmark, such as ARGS="-m 'not slow'"
TORCH ?= torch
PYTHON ?= python3
WORKERS ?= auto
ARGS ?=

VENV := .venv
READY := $(VENV)/.ready
ifeq ($(OS),Windows_NT)
    BIN := $(VENV)/Scripts
    SYSTEM := Windows
else
    BIN := $(VENV)/bin
    SYSTEM := $(shell uname -s)
endif

# A window needs a display on Linux, and nothing on macOS and Windows.
ifeq ($(SYSTEM),Linux)
    HEADLESS := $(if $(DISPLAY)$(WAYLAND_DISPLAY),,--headless)
endif

.PHONY: demo test screen lint docs bench clean

demo: $(READY)
	$(BIN)/napari-unet demo $(HEADLESS) $(ARGS)

test: screen lint
	env -u QT_QPA_PLATFORM $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

screen:
	@$(PYTHON) scripts/check_display.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -c "import material, mkdocstrings" 2>/dev/null || $(BIN)/python -m pip install -q -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

bench: $(READY)
	$(BIN)/python -m pip install -q -e ".[bench]"
	$(BIN)/napari-unet bench --quick --json bench.json $(ARGS)

clean:
	rm -rf $(VENV) build demo dist bench.json .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f src/napari_unet/napari.yaml

# Made anew only when pyproject.toml says something new. torch comes first, so that the package finds
# it installed and does not choose another build.
$(READY): pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	    echo "napari-unet needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	        "name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -e ".[gui,test]"
	@touch $@
