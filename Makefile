PYTHON ?= python
CASE ?= minilm
BUILD ?= build/native

.PHONY: dev native check lint types test slow golden bench demo

dev:  ## editable install with every tool, the commit hooks, and the compiled core
	$(PYTHON) -m pip install -c constraints.txt -e '.[dev,native]' && pre-commit install
	$(MAKE) native

native:  ## the compiled core beside the sources, as src/fewbits/_core*.so; only what changed is compiled again
	cmake -S native -B $(BUILD) -DCMAKE_BUILD_TYPE=Release \
	  -DPython_EXECUTABLE="$$($(PYTHON) -c 'import sys; print(sys.executable)')" \
	  -Dnanobind_DIR="$$($(PYTHON) -m nanobind --cmake_dir)"
	cmake --build $(BUILD) --config Release --parallel
	cmake --install $(BUILD) --config Release --prefix src

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
