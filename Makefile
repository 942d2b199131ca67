# `make run` opens the lab, `make test` passes the tests; both set up .venv the first time.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-remote lint format screenshots catalogues kit reliability audit clean

run: .venv/ready
	@$(BIN)/logitlab $(ARGS)

test: .venv/ready-dev
	@$(BIN)/logitlab models get smollm2-135m
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

test-remote: .venv/ready-dev
	@test -x .venv-llama/bin/python || $(PYTHON) -m venv .venv-llama
	@.venv-llama/bin/python -m pip install --disable-pip-version-check --quiet 'llama-cpp-python[server]' || \
		echo "llama-cpp-python cannot be built here: its tests are skipped"
	@$(BIN)/logitlab models get smollm2-135m
	@LOGITLAB_LLAMA_PYTHON=$$(.venv-llama/bin/python -c 'import llama_cpp.server, sys; print(sys.executable)') \
		$(BIN)/python -m pytest tests/engine/test_remote_llama.py $(ARGS)

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: .venv/ready-dev
	$(BIN)/python docs/screenshots.py

catalogues: .venv/ready-dev
	$(BIN)/python docs/catalogues.py

reliability: .venv/ready-dev
	@rm -f .reliability.jsonl
	RELIABILITY=long RELIABILITY_FIGURES=$(CURDIR)/.reliability.jsonl $(BIN)/python -m pytest tests/reliability \
		-o faulthandler_timeout=0 $(ARGS)
	$(BIN)/python docs/reliability.py .reliability.jsonl "make reliability"

audit: .venv/ready
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

kit: .venv/ready
	@$(BIN)/logitlab kit $(or $(FOLDER),logitlab-kit)

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/ready: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Setting up .venv: this takes a few minutes, once."
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[remote]' --constraint constraints.txt
	@touch $@

.venv/ready-dev: .venv/ready
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	@touch $@
