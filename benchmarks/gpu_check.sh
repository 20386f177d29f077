#!/usr/bin/env bash
# Builds cvops for the NVIDIA GPU of this machine, then tests, times, sanitizes and profiles it, in
# ten minutes.
#
#     benchmarks/gpu_check.sh
#
# The script runs in a plain copy of the repository and does not change it; it builds in a temporary
# folder. It needs no network. The machine must have a C++ compiler, CMake with make or ninja, nvcc,
# and Python with numpy, pybind11, pytest, pytest-benchmark, hypothesis and CuPy. The script uses
# these if they are installed: torch and torchvision (peers), pytest-xdist, pytest-timeout,
# matplotlib, compute-sanitizer, ncu. It changes no setting of the GPU. Environment variables:
#
#     OUT      folder of the results (benchmarks/results); their names have the date and the GPU
#     PYTHON   interpreter (python3)
#     WHEELS   folder of wheels to use in addition to the installed packages
#     BUDGET   seconds for all steps (570)
#     ONLY     comma-separated list of steps (ops,launches,benchmarks,kernels,tests,sanitizers,ncu,
#              plots), for example for the steps that a first run had no time for. A ninth step,
#              "cpu", runs only if it is named: the benchmarks on the CPU
#     TESTS    pytest's -k of the steps "ops" and "tests" (all tests that need a GPU)
#
# The steps run in the order of their importance, after the build. The first five minutes give the
# correctness and the times of each op, and the times of its peers:
#
#     ops         the tests of each op on the GPU backends, without the marker "slow"
#     launches    some ops with and without programmatic dependent launches
#     benchmarks  cvops and its peers on the GPU
#     kernels     each launch of the largest jobs, between two events
#     tests       all tests of the GPU backends
#     sanitizers  a few tests under compute-sanitizer; concurrently, the tests that need no GPU
#     ncu         profiles of the slowest kernels
#     plots       time against size
#
# Results: .md (tables), .json, -summary.txt, -launches.txt (ops with and without dependent launches),
# -kernels.txt (time of each kernel, then the report of ncu), -scaling.json and -scaling.png,
# -logs.tar.gz (the log of each step, JUnit's XML, kernels.json, launches.json).
#
# Each op's results are written when it ends. A failure does not stop the later steps. The exit code is
# 0 only if there was no failure.
set -u

cd "$(dirname "$0")/.." || exit
repo=$PWD
python=${PYTHON:-python3}
if [[ $python == */* ]]; then python=$(realpath -s "$python"); fi
budget=${BUDGET:-570}
# The ids of most tests on a GPU have "cuda-cupy" or "cuda-native". Those of these files do not.
gpu_tests="test_cupy.py or test_gpu_launch.py or test_graph.py or test_torch_gpu.py"
tests="${TESTS:-(cuda-cupy or cuda-native or $gpu_tests or (test_torch_operators.py and cuda)) and not emulat}"
only=,${ONLY:-ops,launches,benchmarks,kernels,tests,sanitizers,ncu,plots},
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

# say TEXT...: adds a line to the summary. A line that begins with FAILED makes the exit code 1.
say() { echo "$*" | tee -a "$summary"; }

# At its time limit a step gets SIGINT, after which pytest still writes its reports. Background jobs of
# bash ignore SIGINT; env restores the default.
interruptible=()
if env --default-signal=INT true 2>/dev/null; then interruptible=(env --default-signal=INT); fi

wanted() { [[ $only == *,$1,* ]]; }

# Archives the logs so far, so that they exist if the run is killed. Steps that run concurrently may
# call it concurrently.
bundle() {
  tar -czf "$work/logs-$BASHPID.tar.gz" -C "$logs" . 2>/dev/null
  mv "$work/logs-$BASHPID.tar.gz" "$base-logs.tar.gz"
}

# step NAME LIMIT LOG COMMAND...: runs COMMAND for at most LIMIT seconds; appends its output to LOG.
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

# --- requirements ---------------------------------------------------------------------------------

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

missing=() unused=()
for command in "$python" cmake nvcc c++; do
  command -v "$command" >/dev/null || missing+=("$command")
done
command -v ninja >/dev/null || command -v make >/dev/null || missing+=("make or ninja")
for module in numpy pybind11 pytest pytest_benchmark hypothesis cupy; do
  has_module "$module" || missing+=("Python's $module")
done
for module in mxnet onnxruntime torch torchvision matplotlib xdist pytest_timeout; do
  has_module "$module" || unused+=("$module")
done
for command in compute-sanitizer ncu; do
  command -v "$command" >/dev/null || unused+=("$command")
done
if ((${#missing[@]})); then say "FAILED requirements: missing $(printf '%s; ' "${missing[@]}")"; fi
if ((${#unused[@]})); then say "Optional and not installed: ${unused[*]}"; fi

# --- build ----------------------------------------------------------------------------------------

# Only for this GPU. Without a GPU, for CUDAARCHS or Hopper, to check that it compiles.
arch=${gpu##*, }
arch=${arch//./}
arch=${arch:-${CUDAARCHS:-90}}

# build CUDA FOLDER: builds in FOLDER and installs, with the kernels for CUDA=ON, without for OFF.
build() {
  local configure=(cmake -S "$repo" -B "$work/$2" -DCMAKE_BUILD_TYPE=Release "-DCVOPS_CUDA=$1"
    "-DCMAKE_CUDA_ARCHITECTURES=${arch%-real}-real"
    "-DPython_EXECUTABLE=$(command -v "$python")"
    "-Dpybind11_DIR=$(cd "$work" && "$python" -m pybind11 --cmakedir)")
  if command -v ninja >/dev/null; then configure+=(-G Ninja "-DCMAKE_MAKE_PROGRAM=$(command -v ninja)"); fi
  step "configure $2 for sm_${arch%-real}" 40 build.log "${configure[@]}" &&
    step "build $2" 150 build.log cmake --build "$work/$2" --parallel "$(nproc)" &&
    step "install $2" 20 build.log cmake --install "$work/$2" --prefix "$site"
}

cp -R "$repo/cvops" "$site/"
rm -f "$site"/cvops/*.so
# If nvcc fails, the backend "cupy" still runs: NVRTC compiles its kernels.
build ON with-cuda || build OFF without-cuda
# Not in the repository, whose cvops has no extension.
cd "$work" || exit
step import 60 build.log "$python" -c "
import cvops, cvops._native as native
from cvops.backends import extension
print(cvops.__file__, native.__file__)
assert cvops.__file__.startswith('$site'), f'cvops: expected $site, got {cvops.__file__}'
assert extension.machine_code(), 'cvops._native: expected the kernels of nvcc, got none'
"

# --- tests and benchmarks -------------------------------------------------------------------------

# The installed versions are not those of CI, so their warnings are no errors.
pytest=("$python" -m pytest -p no:cacheprovider -W default --rootdir "$repo" -c "$repo/pyproject.toml")
all=(-m "") # with the marker "slow"
parallel=()
if has_module xdist; then parallel=(-n "$(($(nproc) / 2 + 1))"); fi
# An illegal access, or a kernel that never ends, makes the later tests of its process fail. Each file
# of tests on the GPU therefore has a process of its own.
isolated=()
if has_module xdist; then
  isolated=(-n 16 --dist loadfile --max-worker-restart 2)
  if has_module pytest_timeout; then isolated+=(--timeout 40 --timeout-method thread); fi
fi

# count_tests XML: prints the outcomes on each backend; FAILED if no test passed on it.
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
  for step in ops launches benchmarks kernels tests sanitizers ncu plots; do
    if wanted $step; then
      say "FAILED $step: not run, because nvidia-smi lists no GPU"
    fi
  done
  only=,
fi

# test_gpu NAME LIMIT ARGUMENT...: runs tests on the GPU, one process for each file.
test_gpu() {
  local name=$1 limit=$2
  shift 2
  step "$name" "$limit" "$name.log" "${pytest[@]}" "${isolated[@]}" "$@" -k "$tests" \
    --continue-on-collection-errors --junit-xml "$logs/$name.xml"
  if [[ -s $logs/$name.xml ]]; then
    while IFS= read -r line; do say "$line"; done < <(count_tests "$logs/$name.xml")
  fi
}

if wanted ops; then test_gpu ops 90 "$repo/tests/ops"; fi

if wanted launches; then
  step launches 30 launches.log "$python" "$repo/benchmarks/dependent_launches.py" \
    --json "$logs/launches.json"
  cp "$logs/launches.log" "$base-launches.txt"
fi

# The most important ops come first. "overhead", the calls of all ops on a few elements, is last.
ops=()
for op in box_nms multiclass_nms multibox_target multibox_detection roi_pooling box_iou multibox_prior \
  $(basename -s .py -a "$repo"/benchmarks/bench_*.py | sed s/^bench_// | grep -vx overhead) overhead; do
  if [[ -f $repo/benchmarks/bench_$op.py && " ${ops[*]} " != *" $op "* ]]; then ops+=("$op"); fi
done

# merge_json TARGET FILE...: joins the results of the ops.
merge_json() {
  "$python" - "$@" <<'PYTHON'
import json
import os
import sys

target, *files = sys.argv[1:]
loaded = []
for name in files:
    try:
        loaded.append(json.load(open(name)))
    except ValueError:
        pass  # another process writes it now, or a killed process wrote a part of it
if not loaded:
    sys.exit()
first, *others = loaded
for other in others:
    for key in ("benchmarks", "summary", "gpu"):
        first[key] += other[key]
    for title, lines in other["tables"].items():
        known = first["tables"].setdefault(title, [])
        known += lines[1:] if known else lines  # one head
part = target + ".part"
with open(part, "w") as file:
    json.dump(first, file, indent=1)
os.replace(part, target)
PYTHON
}

# Each op has a process of its own: a kernel that fails or hangs does not affect the other ops. Four
# processes start and check their inputs at the same time; a lock lets one of them use the GPU.
time_op() {
  local op=$1 left=$((end - SECONDS))
  step "benchmarks of $op" $((left < 60 ? left : 60)) "benchmarks-$op.log" \
    env CVOPS_BENCHMARK_LOCK="$work/lock" "${pytest[@]}" "$repo/benchmarks/bench_$op.py" \
    -k "gpu or graph" --seconds 0.1 --table "$logs/$op.md" --benchmark-json "$logs/$op.json"
  if [[ ! -s $logs/$op.md ]]; then say "FAILED benchmarks of $op: nothing was timed"; fi
}

# Joins the results so far, in the order of the ops. A run that is killed keeps them.
join_results() {
  local op tables=() results=()
  for op in "${ops[@]}"; do
    if [[ -s $logs/$op.md ]]; then tables+=("$logs/$op.md"); fi
    if [[ -s $logs/$op.json ]]; then results+=("$logs/$op.json"); fi
  done
  if ((${#tables[@]})); then cat "${tables[@]}" >"$work/tables" && mv "$work/tables" "$base.md"; fi
  if ((${#results[@]})); then merge_json "$base.json" "${results[@]}"; fi
}

if wanted benchmarks; then
  start=$SECONDS end=$((SECONDS + 200)) running=0
  rm -f "$base.md"
  for op in "${ops[@]}"; do
    if ((running == 4)); then
      wait -n
      ((running -= 1))
      join_results
    fi
    time_op "$op" &
    ((running += 1))
  done
  wait
  # A hanging process also stops those that wait for the lock.
  for op in "${ops[@]}"; do
    if [[ ! -s $logs/$op.md ]]; then time_op "$op"; fi
  done
  join_results
  say "benchmarks of all ops: $((SECONDS - start)) s"
fi

if wanted kernels || wanted ncu; then
  step kernels 60 kernels.log "$python" "$repo/benchmarks/kernel_times.py" --json "$logs/kernels.json"
  cp "$logs/kernels.log" "$base-kernels.txt"
fi

# Only these folders have such tests. The collection of all folders takes half a minute.
gpu_folders=("$repo/tests/ops" "$repo/tests/gpu" "$repo/tests/arrays")
if [[ -n ${TESTS:-} ]]; then gpu_folders=("$repo/tests"); fi
if wanted tests; then test_gpu tests 150 "${gpu_folders[@]}" "${all[@]}"; fi

# --- sanitizers, and concurrently the tests on the CPU --------------------------------------------

if wanted sanitizers; then
  if wanted tests; then
    step "tests without a GPU" 120 tests-cpu.log "${pytest[@]}" "${all[@]}" "${parallel[@]}" "$repo/tests" \
      -k "not emulat and not ($tests)" --continue-on-collection-errors &
  fi
  if command -v compute-sanitizer >/dev/null; then
    # Without a pool each array is an allocation of its own, whose bounds the sanitizer checks.
    echo 'import cupy; cupy.cuda.set_allocator(None)' >"$site/without_pool.py"
    port=50000
    for tool in memcheck racecheck initcheck synccheck; do
      ((port += 20)) # each tool uses ten ports
      step "$tool" 120 "$tool.log" compute-sanitizer --tool "$tool" --target-processes all \
        --port "$port" --require-cuda-init no --error-exitcode 9 \
        "${pytest[@]}" "${all[@]}" -p without_pool -q "${op_tests[@]}" -k "$sanitized" \
        --continue-on-collection-errors &
    done
  else
    say "FAILED sanitizers: compute-sanitizer is not on PATH"
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
    say "FAILED ncu: ncu is not on PATH"
  elif [[ ! -s $logs/kernels.json ]]; then
    say "FAILED ncu: the step kernels has no result"
  else
    # ncu must not change the clocks.
    step ncu 90 ncu.log ncu --clock-control none --set full --profile-from-start off \
      "$python" "$repo/benchmarks/kernel_times.py" --profile "$logs/kernels.json"
    if grep -q 'Section: ' "$logs/ncu.log"; then
      cat "$logs/ncu.log" >>"$base-kernels.txt"
    else
      say "FAILED ncu: no kernel was profiled: $(grep -m 1 '==ERROR==\|==WARNING==' "$logs/ncu.log")"
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
  files=("${ops[@]/#/$repo/benchmarks/bench_}")
  step "benchmarks on the CPU" 400 benchmarks-cpu.log "${pytest[@]}" "${files[@]/%/.py}" \
    -k "not gpu and not graph" --table "$base-cpu.md" --benchmark-json "$base-cpu.json"
fi

# --- summary --------------------------------------------------------------------------------------

bundle
echo
echo "===== $SECONDS s; results in $out ====="
awk '/^###/ {shown = /^### GPU summary/} shown && /^[#|]/' "$base.md" 2>/dev/null
grep -hE '^  [a-z0-9_]+ \(|Duration  |Memory Throughput  .*%|Compute \(SM\) Throughput|Achieved Occupancy' \
  "$logs/ncu.log" 2>/dev/null
cat "$summary"
for log in ops tests tests-cpu; do
  tail -n 1 "$logs/$log.log" 2>/dev/null
done
grep -hE '^(FAILED|ERROR) ' "$logs"/{ops,tests,tests-cpu,benchmarks-*}.log 2>/dev/null | cut -c 1-200 | head -n 20
! grep -q '^FAILED' "$summary"
