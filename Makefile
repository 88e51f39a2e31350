PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check bench docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/ultratwin train meta-llama/Llama-3.1-405B --system trn3-gen2-ultraserver --chips 4608 --tokens 15.6T

test: setup
	$(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff format --check src tests tools
	$(BIN)/ruff check src tests tools
	$(BIN)/mypy

bench: setup
	$(BIN)/python tools/bench.py

clean:
	rm -rf $(VENV) build dist

# everything in the pages that is made from the code; the picture and tables first, as the outputs take longest
docs: setup
	$(BIN)/python tools/make_picture.py
	$(BIN)/python tools/make_example_pictures.py
	$(BIN)/python tools/make_scoreboard.py
	$(BIN)/python tools/make_claims.py
	$(BIN)/python tools/make_reference.py
	$(BIN)/python tools/make_outputs.py
