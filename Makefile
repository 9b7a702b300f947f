# Every target installs what it needs into .venv. Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 test
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

.PHONY: demo test unit check bench notebooks clean

demo: .venv/.demo
	$(BIN)/llm-memory demo

test: .venv/.dev .venv/.npm
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

unit: .venv/.dev
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow" tests/unit tests/stores tests/engines

check: .venv/.dev .venv/.npm notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_tree.py

bench: .venv/.dev .venv/.bench
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/probe_survival.py
	$(BIN)/python benchmarks/chat_turn.py
	$(BIN)/python benchmarks/quality.py --postgres
	$(BIN)/python benchmarks/vector.py
	$(BIN)/python benchmarks/working.py
	$(BIN)/python benchmarks/key_value.py

notebooks: .venv/.dev
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks

clean:
	rm -rf .venv build dist

.venv/.python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

.venv/.demo: .venv/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[cli]"
	touch $@

.venv/.dev: .venv/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[cli,openai,gemini,redis,postgres,supabase,encryption,compression]" --group test --group check
	touch $@

.venv/.bench: .venv/.dev pyproject.toml
	$(BIN)/python -m pip install --quiet --group bench
	touch $@

# Supabase's API and lints, for tests: no package of these may run a script when it is installed.
.venv/.npm: .venv/.python tests/supabase/package.json tests/supabase/package-lock.json
	cd tests/supabase && npm ci --ignore-scripts --no-audit --no-fund
	touch $@
