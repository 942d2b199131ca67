# `make run` opens the lab, `make test` passes the tests; both set up .venv the first time.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-remote lint format screenshots catalogues kit reliability audit clean

run: .venv/ready
	@$(BIN)/logitlab $(ARGS)

test: .venv/ready-dev
	@$(BIN)/logitlab models get smollm2-135m
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

# Against servers that others wrote: llama-cpp-python's and llama.cpp's are built here, once, in several minutes, and
# skipped where they cannot be. VLLM=/path/to/vllm adds vLLM's.
test-remote: .venv/ready-dev
	@sh tests/servers.sh
	@$(BIN)/logitlab models get smollm2-135m
	@LOGITLAB_LLAMA_PYTHON=$$(ls $(CURDIR)/.venv-llama/bin/llama-ready-python 2>/dev/null) \
		LOGITLAB_LLAMA_SERVER=$$(ls $(CURDIR)/.venv-llama/bin/llama-server 2>/dev/null) LOGITLAB_VLLM=$(VLLM) \
		$(BIN)/python -m pytest tests/engine/test_remote_real.py -rs $(ARGS)

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
