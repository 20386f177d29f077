# make demo   trains a TinySSD with cvops, evaluates it and draws what it finds
# make demo-fcn   trains a fully convolutional network and draws what it segments
# make test   runs the tests
# make bench  times each op beside the peers that are installed, and counts its instructions
# make bench-plots  draws how the times grow with the inputs
# make bench-gluon  times whole Gluon models, on MXNet's operators and on cvops's
# Those three write what they print, and all numbers, into the folder RESULTS.
# Each prepares .venv first, with PYTHON (3.9 or newer) and a C++17 compiler. With nvcc on PATH the
# kernels are compiled into the extension too.

PYTHON ?= python3
# The CUDA generation of CuPy: 12 or 13.
CUDA ?= 13
# What nvcc compiles for: the GPUs that are here, or Hopper where there are none.
export CUDAARCHS ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader \
  2>/dev/null | tr -d . | sort -u | paste -sd ';'),90)
BIN := .venv/bin
EXTRAS := bench,cuda$(CUDA),demo,lint,test
RESULTS ?= benchmarks/results
# A result's name, without its ending.
result = $(RESULTS)/$(shell date +%F)$(1)-cpu-$(shell nproc)-cores
SOURCES := $(wildcard bindings/*.* bindings/*/* kernels/*) CMakeLists.txt pyproject.toml

.PHONY: setup demo demo-fcn test bench bench-instructions bench-plots bench-gluon lint format clean

setup: .venv/ready

.venv/ready: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { echo "$(PYTHON) cannot make a virtual environment: on Debian, apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --upgrade "pip>=23"
# MXNet's metadata asks for a NumPy before 2, which has no wheels for Python 3.13. MXNet runs on NumPy 2.
	$(BIN)/pip install --quiet --editable ".[$(EXTRAS),mxnet]"
	$(BIN)/python -c "import sys; sys.exit(sys.version_info >= (3, 13))" || \
	  $(BIN)/pip install --quiet --no-deps mxnet==1.9.1
	touch .venv/ready

demo: setup
	$(BIN)/cvops demo --output demo

demo-fcn: setup
	$(BIN)/cvops demo-fcn --output demo-fcn

# The tests of a file stay together for the most part, and with them what is compiled for a file.
test: setup
	$(BIN)/python -m pytest tests -n auto --maxprocesses 8 --dist worksteal

# MXNet reads it when it loads: left to itself it uses half of the cores.
bench bench-plots bench-gluon: export OMP_NUM_THREADS ?= $(shell nproc)

# MXNet apart from the other peers: in one process their threads would wait for one another's cores.
bench: setup
	$(BIN)/python -m pytest benchmarks -k "not torch and not book and not onnxruntime" \
	  --table $(call result).md --benchmark-json $(call result).json
	$(BIN)/python -m pytest benchmarks -k "not mxnet" \
	  --table $(call result,-others).md --benchmark-json $(call result,-others).json
	$(MAKE) bench-instructions

bench-instructions: setup
	$(BIN)/python benchmarks/callgrind.py --table $(call result,-instructions).md \
	  --json $(call result,-instructions).json

bench-plots: setup
	$(BIN)/python benchmarks/plots.py --json $(call result,-scaling).json \
	  --plot $(call result,-scaling).png --device cpu

# Threads of MXNet that wait would spin, beside ours in the same process. The demos set the same.
bench-gluon: export OMP_WAIT_POLICY ?= PASSIVE
bench-gluon: setup
	$(BIN)/python -m pytest benchmarks/gluon --table $(call result,-gluon).md \
	  --benchmark-json $(call result,-gluon).json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cuh' '*.cu' '*.cpp' '*.h')

format: setup
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cuh' '*.cu' '*.cpp' '*.h')

clean:
	rm -rf .venv build demo demo-fcn
