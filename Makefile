PYTHON ?= python
CASE ?= minilm
BUILD ?= build/native

.PHONY: dev native check lint types test slow golden bench demo fuzz sanitize

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

fuzz:  ## 10^7 damaged bodies for the native decoder, and the row; needs clang (CLANGXX=clang++-14) and cmake
	$(PYTHON) tests/hostile/fuzz/run.py decode_body

# The sanitizers' libraries must be there before Python is; so must the C++ library whose exceptions they watch.
SANITIZED ?= $(CURDIR)/build/sanitized
sanitize:  ## tests of the core in C++, then those in Python, with both sanitizers of g++; Linux, slow
	$(PYTHON) -m pytest -m slow tests/unit/test_core_cpp.py tests/hostile/test_native_fuzz.py
	cmake -S native -B $(SANITIZED) -DFEWBITS_SANITIZE=ON -DCMAKE_BUILD_TYPE=Sanitized \
	  -DCMAKE_CXX_COMPILER=g++ -DCMAKE_CXX_FLAGS="-O1 -g1" \
	  -DPython_EXECUTABLE="$$($(PYTHON) -c 'import sys; print(sys.executable)')" \
	  -Dnanobind_DIR="$$($(PYTHON) -m nanobind --cmake_dir)"
	cmake --build $(SANITIZED) --parallel
	rm -rf $(SANITIZED)/package && mkdir $(SANITIZED)/package && cp -r src/fewbits $(SANITIZED)/package
	rm -f $(SANITIZED)/package/fewbits/_core*.so && cmake --install $(SANITIZED) --prefix $(SANITIZED)/package
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$(SANITIZED)/package \
	  $(PYTHON) -m pytest tests/unit tests/golden tests/hostile/test_payloads.py tests/hostile/test_files.py
