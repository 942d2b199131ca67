# `make run` opens the lab, `make test` passes the tests; both set up .venv the first time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch's build: cpu (.venv takes 1.6 GB) or cuda (5.3 GB). Without it the NVIDIA driver decides, when .venv is set up.
TORCH ?=
# Test processes; half of the time they wait for processes, sockets and terminals.
PROCESSES ?= 3

.PHONY: run test gpu test-remote models test-pythons lint format screenshots catalogues kit reliability audit clean

run: $(VENV)/ready
	@$(BIN)/logitlab $(ARGS)

test: $(VENV)/ready-dev
	@$(BIN)/logitlab models get smollm2-135m
	@$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal $(ARGS)

# On a GPU, where there is one: the same answers as on the processor, then a table of what it is worth.
gpu: $(VENV)/ready-dev
	@$(BIN)/logitlab models get smollm2-135m
	@$(BIN)/python -m pytest tests/engine/test_gpu.py -rs $(ARGS)
	@$(BIN)/python benchmarks/gpu.py

# Against servers and tokenizers that others wrote: llama-cpp-python's and llama.cpp's are built here, once, in several
# minutes, tokenizers that people use are fetched, and each is skipped where it cannot be. VLLM=/path/to/vllm adds vLLM's.
test-remote: $(VENV)/ready-dev
	@sh tests/servers.sh
	@PYTHON=$(abspath $(BIN))/python sh tests/vocabularies.sh
	@PYTHON=$(abspath $(BIN))/python sh tests/tokenizers.sh
	@$(BIN)/logitlab models get smollm2-135m
	@LOGITLAB_TOKENIZERS=$(CURDIR)/.tokenizers PYTHONPATH=$(CURDIR)/.tokenizers/python \
		$(BIN)/python -m pytest tests/engine/test_real_tokenizers.py tests/engine/test_real_templates.py -rs $(ARGS)
	@LOGITLAB_LLAMA_PYTHON=$$(ls $(CURDIR)/.venv-llama/bin/llama-ready-python 2>/dev/null) \
		LOGITLAB_LLAMA_SERVER=$$(ls $(CURDIR)/.venv-llama/bin/llama-server 2>/dev/null) LOGITLAB_VLLM=$(VLLM) \
		LOGITLAB_LLAMA_PERPLEXITY=$$(ls $(CURDIR)/.venv-llama/bin/llama-perplexity 2>/dev/null) \
		LOGITLAB_VOCABULARIES=$(CURDIR)/.venv-llama/vocabularies \
		$(BIN)/python -m pytest tests/engine/test_remote_real.py tests/engine/test_gguf_vocabularies.py tests/engine/test_gguf_families.py \
		tests/engine/test_difference_llama_cpp.py tests/engine/test_steering_llama_cpp.py \
		tests/engine/test_stages_llama_cpp.py -rs $(ARGS)

# With every Python from 3.11 on that is found, each in an environment .venv-3.XX.
test-pythons:
	@sh tests/pythons.sh

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: $(VENV)/ready-dev
	$(BIN)/python docs/screenshots.py

catalogues: $(VENV)/ready-dev
	$(BIN)/python docs/catalogues.py

# Every architecture against transformers' own answers, and GGUF files against llama.cpp where make test-remote has built
# it; takes half an hour. ARGS="llama mamba" prints some architectures alone.
models: $(VENV)/ready-dev
	$(BIN)/python docs/models.py $(ARGS)
	$(if $(ARGS),,@LOGITLAB_LLAMA_PYTHON=$$(ls $(CURDIR)/.venv-llama/bin/llama-ready-python 2>/dev/null) \
		LOGITLAB_VOCABULARIES=$(CURDIR)/.venv-llama/vocabularies $(BIN)/python docs/encodings.py)

# What takes long: the tests marked so, which make test leaves out, and those of tests/reliability at their full length.
reliability: $(VENV)/ready-dev
	@rm -f .reliability.jsonl
	RELIABILITY=long RELIABILITY_FIGURES=$(CURDIR)/.reliability.jsonl $(BIN)/python -m pytest -m long \
		-o faulthandler_timeout=0 $(ARGS)
	$(BIN)/python docs/reliability.py .reliability.jsonl "make reliability"

audit: $(VENV)/ready
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

kit: $(VENV)/ready
	@$(BIN)/logitlab kit $(or $(FOLDER),logitlab-kit) $(if $(TORCH),--torch $(TORCH))

clean:
	rm -rf .venv .venv-3.*

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV): this takes a few minutes, once."
	@$(BIN)/python engine/install/torch_build.py $(TORCH)
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[remote]' --constraint constraints.txt
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	@touch $@
