#!/usr/bin/env bash
# Builds cvops for this machine's NVIDIA GPU, then tests, times, sanitizes and profiles it, in ten
# minutes.
#
#     benchmarks/gpu_check.sh
#
# Works from a plain copy of the tree and changes nothing in it; what is built lies in a temporary
# folder. Needs no network: Python with numpy, pybind11, pytest, pytest-benchmark, hypothesis and
# CuPy, CMake, nvcc and a C++ compiler are the machine's. What else there is is used: torch and
# torchvision to compare with, pytest-xdist and pytest-timeout, matplotlib, compute-sanitizer, ncu.
# The GPU's settings stay as they are. These say otherwise:
#
#     OUT      where the results go (benchmarks/results), named by date and GPU: see "results" below
#     PYTHON   the interpreter (python3)
#     WHEELS   a folder of wheels to use beside what is installed
#     BUDGET   seconds for everything (570)
#     ONLY     some of the steps (tests,benchmarks,kernels,sanitizers,ncu,plots), separated by commas;
#              after a first run that lacked time, say. "cpu", only if named: the benchmarks on the CPU
#     TESTS    which tests the first step runs, as pytest's -k (all that need a GPU)
#
# Steps, by their worth: the build; the tests of the GPU's backends; the benchmarks of ours and of
# PyTorch on the GPU; each launch of the largest jobs between events ("kernels"); compute-sanitizer,
# and beside it the tests that need no GPU; ncu on the slowest kernels; plots of time against size.
#
# Results: .md (the tables), .json, -summary.txt, -kernels.txt (time by kernel, then what ncu says),
# -scaling.json and .png, -logs.tar.gz (a log of each step, JUnit's XML, kernels.json).
#
# No failure stops the later steps; the exit code is 0 only if there was none.
set -u

cd "$(dirname "$0")/.." || exit
repo=$PWD
python=${PYTHON:-python3}
budget=${BUDGET:-570}
tests="${TESTS:-(cuda or captured or test_cupy or test_gpu) and not emulat}"
only=,${ONLY:-tests,benchmarks,kernels,sanitizers,ncu,plots},
mkdir -p "${OUT:=$repo/benchmarks/results}" && out=$(cd "$OUT" && pwd) || exit
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
logs=$work/logs
mkdir -p "$logs"

gpu=$(nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
name=$(tr 'A-Z ' 'a-z-' <<<"${gpu%%,*}" | tr -cd 'a-z0-9-')
base=$out/$(date +%Y-%m-%d)-${name:-no-gpu}
summary=$base-summary.txt
: >"$summary"

# One line of the summary. What begins with FAILED makes the exit code.
say() { echo "$*" | tee -a "$summary"; }

# Interrupted, pytest still writes its reports; but what runs in the background would ignore it.
interruptible=()
if env --default-signal=INT true 2>/dev/null; then interruptible=(env --default-signal=INT); fi

wanted() { [[ $only == *,$1,* ]]; }

# What there is so far: a run that is killed leaves it behind. Steps that run side by side may come
# here at a time.
bundle() {
  tar -czf "$work/logs-$BASHPID.tar.gz" -C "$logs" . 2>/dev/null
  mv "$work/logs-$BASHPID.tar.gz" "$base-logs.tar.gz"
}

# step NAME LIMIT LOG COMMAND...: run it for LIMIT seconds at most, its output at the end of LOG.
step() {
  local name=$1 limit=$2 log=$logs/$3 start=$SECONDS code
  shift 3
  if ((limit > budget - SECONDS)); then limit=$((budget - SECONDS)); fi
  if ((limit < 5)); then
    say "FAILED $name: no time left"
    return 1
  fi
  timeout --signal=INT --kill-after=10 "$limit" "${interruptible[@]}" "$@" >>"$log" 2>&1
  code=$?
  case $code in
    0) say "ok     $name: $((SECONDS - start)) s" ;;
    124 | 137) say "FAILED $name: stopped after $limit s, see ${log##*/}" ;;
    *) say "FAILED $name: exit code $code after $((SECONDS - start)) s, see ${log##*/}" ;;
  esac
  bundle
  return $code
}

# --- what is here ---------------------------------------------------------------------------------

say "GPU: ${gpu:-none}; CPU cores: $(nproc)"
for folder in /usr/local/cuda/bin /opt/nvidia/nsight-compute/*/; do
  if [[ -d $folder ]]; then PATH=$PATH:${folder%/}; fi
done
site=$work/site
mkdir -p "$site"
if [[ -n ${WHEELS:-} ]]; then
  step wheels 60 build.log "$python" -m pip install --quiet --no-index --no-deps \
    --no-compile --no-cache-dir --target "$site" "$WHEELS"/*.whl
fi
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export CVOPS_CACHE_DIR=$work/cache CUPY_CACHE_DIR=$work/cupy

has_module() { (cd "$work" && "$python" -c "import importlib.util as u, sys; sys.exit(not u.find_spec('$1'))"); }

needed=() absent=()
for command in "$python" cmake nvcc c++; do
  command -v "$command" >/dev/null || needed+=("$command")
done
for module in numpy pybind11 pytest pytest_benchmark hypothesis cupy; do
  has_module "$module" || needed+=("Python's $module")
done
for module in mxnet onnxruntime torch torchvision matplotlib xdist pytest_timeout; do
  has_module "$module" || absent+=("$module")
done
for command in compute-sanitizer ncu; do
  command -v "$command" >/dev/null || absent+=("$command")
done
if ((${#needed[@]})); then say "FAILED this machine lacks: $(printf '%s; ' "${needed[@]}")"; fi
if ((${#absent[@]})); then say "Not used, since not here: ${absent[*]}"; fi

# --- build ----------------------------------------------------------------------------------------

# For this GPU only; without one, for what is asked for, to see that it compiles.
arch=${gpu##*, }
arch=${arch//./}
arch=${arch:-${CUDAARCHS:-90}}

# build CUDA FOLDER: with CUDA (ON) or without (OFF).
build() {
  local configure=(cmake -S "$repo" -B "$work/$2" -DCMAKE_BUILD_TYPE=Release "-DCVOPS_CUDA=$1"
    "-DCMAKE_CUDA_ARCHITECTURES=${arch%-real}-real"
    "-DPython_EXECUTABLE=$(command -v "$python")"
    "-Dpybind11_DIR=$(cd "$work" && "$python" -m pybind11 --cmakedir)")
  if command -v ninja >/dev/null; then configure+=(-G Ninja "-DCMAKE_MAKE_PROGRAM=$(command -v ninja)"); fi
  step "configure $2 for sm_${arch%-real}" 60 build.log "${configure[@]}" &&
    step "build $2" 150 build.log cmake --build "$work/$2" --parallel "$(nproc)" &&
    step "install $2" 20 build.log cmake --install "$work/$2" --prefix "$site"
}

# With what it takes from beside it: should the build fail, the kernels still run by CuPy.
cp -R "$repo/cvops" "$repo/kernels" "$repo/bindings" "$site/"
rm -f "$site"/cvops/*.so
build ON with-cuda || build OFF without-cuda
# Away from the repository, whose cvops has no extension.
cd "$work" || exit
step import 60 build.log "$python" -c "
import cvops, cvops._native as native
from cvops import _gpu
print(cvops.__file__, native.__file__)
assert cvops.__file__.startswith('$site'), 'another cvops comes first'
assert _gpu.machine_code(), 'built without CUDA'
"

# --- tests and benchmarks -------------------------------------------------------------------------

# The warnings of the versions that happen to be here are no errors.
pytest=("$python" -m pytest -p no:cacheprovider -W default --rootdir "$repo" -c "$repo/pyproject.toml")
parallel=()
if has_module xdist; then parallel=(-n "$(($(nproc) / 2 + 1))"); fi
# Of the GPU's: an illegal access, or a kernel that never ends, takes with it what its process has
# yet to do, so that each op's file is left to one that no other's is.
apart=()
if has_module xdist; then
  apart=(-n 16 --dist loadfile --max-worker-restart 2)
  if has_module pytest_timeout; then apart+=(--timeout 40 --timeout-method thread); fi
fi

# What ran on the GPU, from JUnit's XML, and that something did.
count_tests() {
  "$python" - "$1" <<'PYTHON'
import sys
from collections import Counter
from xml.etree import ElementTree

counts = {name: Counter() for name in ("cuda-cupy", "cuda-native")}
for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
    outcome = next((x.tag for x in case if x.tag in ("failure", "error", "skipped")), "passed")
    for name, count in counts.items():
        if name in case.get("name", ""):
            count[outcome] += 1
for name, count in counts.items():
    text = ", ".join(f"{n} {outcome}" for outcome, n in sorted(count.items())) or "none"
    print("ok    " if count["passed"] else "FAILED", f"tests on {name}: {text}")
PYTHON
}

# A few tests of each op: by hand, and with several blocks, tiles and images.
sanitized="cuda and (test_iou_by_hand or test_center_format or test_output_has_the_leading_axes \
or test_anchors_of_the_first_cell or test_anchors_of_two_maps or test_kept_rows_by_hand \
or test_equal_scores_keep_their_order or test_sets_of_rows_are_independent or than_a_sort_tile \
or test_several_chunks or test_more_candidates_than_a_sample or test_decoded_box_by_hand \
or test_example_of_the_book or test_images_are_independent or test_mined_negatives \
or test_values_and_argmax_of_two_rois or test_tiny_and_huge_rois \
or test_gradient_equals_finite_differences or test_gradient_is_the_transpose \
or equal_the_reference and (confusion_matrix or label_from_color or bilinear_upsample))"
op_tests=()
for file in "$repo"/kernels/*.cuh; do
  file=$repo/tests/ops/test_$(basename "$file" .cuh).py
  if [[ -f $file ]]; then op_tests+=("$file"); fi
done

if [[ -z $gpu ]]; then
  for step in tests benchmarks kernels sanitizers ncu plots; do
    if wanted $step; then
      say "FAILED $step: not run, there is no GPU here (nvidia-smi names none)"
    fi
  done
  only=,
fi

if wanted tests; then
  step tests 150 tests.log "${pytest[@]}" "${apart[@]}" "$repo/tests" -k "$tests" \
    --continue-on-collection-errors --junit-xml "$logs/tests.xml"
  if [[ -s $logs/tests.xml ]]; then
    while IFS= read -r line; do say "$line"; done < <(count_tests "$logs/tests.xml")
  fi
fi

# Those of the ops that matter most come first.
benchmarks=()
for op in box_nms multiclass_nms multibox_target multibox_detection roi_pooling box_iou multibox_prior; do
  if [[ -f $repo/benchmarks/bench_$op.py ]]; then benchmarks+=("$repo/benchmarks/bench_$op.py"); fi
done
for file in "$repo"/benchmarks/bench_*.py; do
  if [[ " ${benchmarks[*]} " != *" $file "* ]]; then benchmarks+=("$file"); fi
done

# A process for each, so that a kernel that fails or hangs takes no other op's results with it.
if wanted benchmarks; then
  results=()
  rm -f "$base.md"
  end=$((SECONDS + 200))
  for file in "${benchmarks[@]}"; do
    op=$(basename "$file" .py)
    op=${op#bench_}
    left=$((end - SECONDS))
    step "benchmarks of $op" $((left < 60 ? left : 60)) benchmarks.log "${pytest[@]}" "$file" \
      -k "gpu or graph" --seconds 0.1 --table "$logs/$op.md" --benchmark-json "$logs/$op.json"
    if [[ -s $logs/$op.md ]]; then
      cat "$logs/$op.md" >>"$base.md"
    else
      say "FAILED benchmarks of $op: nothing was timed"
    fi
    if [[ -s $logs/$op.json ]]; then results+=("$logs/$op.json"); fi
  done
  if ((${#results[@]})); then
    "$python" - "$base.json" "${results[@]}" <<'PYTHON'
import json
import sys

target, *files = sys.argv[1:]
first, *others = [json.load(open(file)) for file in files]
for other in others:
    for key in ("benchmarks", "summary", "gpu"):
        first[key] += other[key]
    for title, lines in other["tables"].items():
        known = first["tables"].setdefault(title, [])
        known += lines[1:] if known else lines  # the heads stand once
json.dump(first, open(target, "w"), indent=1)
PYTHON
  fi
fi

if wanted kernels || wanted ncu; then
  step kernels 60 kernels.log "$python" "$repo/benchmarks/kernel_times.py" --json "$logs/kernels.json"
  cp "$logs/kernels.log" "$base-kernels.txt"
fi

# --- sanitizers, and the tests of the CPU beside them ---------------------------------------------

if wanted sanitizers; then
  if wanted tests; then
    step "tests without a GPU" 120 tests-cpu.log "${pytest[@]}" "${parallel[@]}" "$repo/tests" \
      -k "not emulat and not ($tests)" --continue-on-collection-errors &
  fi
  if command -v compute-sanitizer >/dev/null; then
    # Each array in memory of its own, so that what lies beyond it, or was not written, is noticed.
    echo 'import cupy; cupy.cuda.set_allocator(None)' >"$site/without_pool.py"
    port=50000
    for tool in memcheck racecheck initcheck synccheck; do
      ((port += 20)) # each has ten of its own
      step "$tool" 120 "$tool.log" compute-sanitizer --tool "$tool" --target-processes all \
        --port "$port" --require-cuda-init no --error-exitcode 9 \
        "${pytest[@]}" -p without_pool -q "${op_tests[@]}" -k "$sanitized" \
        --continue-on-collection-errors &
    done
  else
    say "FAILED sanitizers: no compute-sanitizer on PATH"
  fi
  wait
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
      grep -q ' passed' "$logs/$tool.log" || say "FAILED $tool: no test ran"
      say "$tool: $(grep -h 'ERROR SUMMARY\|RACECHECK SUMMARY' "$logs/$tool.log" | tail -n 1)"
    done
  fi
fi

# --- profiles and plots ---------------------------------------------------------------------------

if wanted ncu; then
  if ! command -v ncu >/dev/null; then
    say "FAILED ncu: not on PATH"
  elif [[ ! -s $logs/kernels.json ]]; then
    say "FAILED ncu: which kernels are slowest is not known"
  else
    # The clocks stay as they are.
    step ncu 90 ncu.log ncu --clock-control none --set full --profile-from-start off \
      "$python" "$repo/benchmarks/kernel_times.py" --profile "$logs/kernels.json"
    if grep -q 'Section: ' "$logs/ncu.log"; then
      cat "$logs/ncu.log" >>"$base-kernels.txt"
    else
      say "FAILED ncu: profiled nothing: $(grep -m 1 '==ERROR==\|==WARNING==' "$logs/ncu.log")"
    fi
  fi
fi

if wanted plots; then
  drawing=()
  if has_module matplotlib; then drawing=(--plot "$base-scaling.png"); fi
  step plots 120 plots.log "$python" "$repo/benchmarks/plots.py" --device cuda \
    --json "$base-scaling.json" "${drawing[@]}"
fi

if wanted cpu; then
  step "benchmarks on the CPU" 400 benchmarks-cpu.log "${pytest[@]}" "${benchmarks[@]}" \
    -k "not gpu and not graph" --table "$base-cpu.md" --benchmark-json "$base-cpu.json"
fi

# --- summary --------------------------------------------------------------------------------------

bundle
echo
echo "===== $SECONDS s; results in $out ====="
awk '/^###/ {short = /^### The GPU in short/} short' "$base.md" 2>/dev/null
grep -hE '^  [a-z0-9_]+ \(|Duration  |Memory Throughput  .*%|Compute \(SM\) Throughput|Achieved Occupancy' \
  "$logs/ncu.log" 2>/dev/null
cat "$summary"
for log in tests tests-cpu; do
  tail -n 1 "$logs/$log.log" 2>/dev/null
done
grep -hE '^(FAILED|ERROR) ' "$logs"/{tests,tests-cpu,benchmarks}.log 2>/dev/null | cut -c 1-200 | head -n 20
! grep -q '^FAILED' "$summary"
