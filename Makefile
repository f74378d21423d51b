PYTHON ?= python
CASE ?= minilm

.PHONY: dev check lint types test slow golden bench demo

dev:  ## editable install with every tool, and the commit hooks
	$(PYTHON) -m pip install -c constraints.txt -e '.[dev]' && pre-commit install

check: lint types test  ## what .ci/run checks, in the present environment

lint:
	ruff check . && ruff format --check .

types:
	pyright

test:
	$(PYTHON) -m pytest

slow:  ## needs FEWBITS_DATA
	$(PYTHON) -m pytest -m slow

golden:  ## make golden ID=ecsq: writes a new golden file; read its bytes against docs/payload before committing
	$(PYTHON) -m tests.golden.write $(ID)

bench:  ## make bench CASE=minilm
	$(PYTHON) bench/run.py $(CASE)

demo:
	fewbits demo
