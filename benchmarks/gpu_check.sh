#!/usr/bin/env bash
# Builds cvops for this machine's NVIDIA GPU, then tests, times and sanitizes it, in ten minutes.
#
#     benchmarks/gpu_check.sh
#
# Works from a plain copy of the tree and changes nothing in it; what is built lies in a temporary
# folder. Needs no network: Python with numpy, pybind11, pytest, pytest-benchmark, hypothesis and
# CuPy, CMake, nvcc and a C++ compiler are the machine's. MXNet, ONNX Runtime, torch and torchvision
# are compared with where they are. These say otherwise:
#
#     OUT      where the results go (benchmarks/results), named by date and GPU:
#              .md (the table), .json, -tests.xml, -summary.txt, and a log of each step
#     PYTHON   the interpreter (python3)
#     WHEELS   a folder of wheels to use beside what is installed
#     BUDGET   seconds for everything (570)
#     TESTS    which tests, as pytest's -k ("not emulat": those need no GPU)
#
# No failure stops the later steps; the exit code is 0 only if there was none.
set -u

cd "$(dirname "$0")/.." || exit
repo=$PWD
python=${PYTHON:-python3}
budget=${BUDGET:-570}
tests=${TESTS:-not emulat}
mkdir -p "${OUT:=$repo/benchmarks/results}" && out=$(cd "$OUT" && pwd) || exit
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT

gpu=$(nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
name=$(tr 'A-Z ' 'a-z-' <<<"${gpu%%,*}" | tr -cd 'a-z0-9-')
base=$out/$(date +%Y-%m-%d)-${name:-no-gpu}
summary=$base-summary.txt
: >"$summary"

# One line of the summary. What begins with FAILED makes the exit code.
say() { echo "$*" | tee -a "$summary"; }

# step NAME LIMIT LOG COMMAND...: run it for LIMIT seconds at most, its output at the end of LOG.
step() {
  local name=$1 limit=$2 log=$3 start=$SECONDS code
  shift 3
  if ((limit > budget - SECONDS)); then limit=$((budget - SECONDS)); fi
  if ((limit < 5)); then
    say "FAILED $name: no time left"
    return 1
  fi
  # Interrupted, pytest still writes its reports.
  timeout --signal=INT --kill-after=10 "$limit" "$@" >>"$log" 2>&1
  code=$?
  case $code in
    0) say "ok     $name: $((SECONDS - start)) s" ;;
    124 | 137) say "FAILED $name: stopped after $limit s, see ${log##*/}" ;;
    *) say "FAILED $name: exit code $code after $((SECONDS - start)) s, see ${log##*/}" ;;
  esac
  return $code
}

# --- what is here ---------------------------------------------------------------------------------

say "GPU: ${gpu:-none}; CPU cores: $(nproc)"
site=$work/site
mkdir -p "$site"
if [[ -n ${WHEELS:-} ]]; then
  step wheels 60 "$base-build.log" "$python" -m pip install --quiet --no-index --no-deps \
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
for module in mxnet onnxruntime torch torchvision; do
  has_module "$module" || absent+=("$module")
done
if ((${#needed[@]})); then say "FAILED this machine lacks: $(printf '%s; ' "${needed[@]}")"; fi
if ((${#absent[@]})); then say "Not compared with, since not here: ${absent[*]}"; fi

# --- build ----------------------------------------------------------------------------------------

# For this GPU only; without one, for what is asked for, to see that it compiles.
arch=${gpu##*, }
arch=${arch//./}
arch=${arch:-${CUDAARCHS:-90}}
configure=(cmake -S "$repo" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCVOPS_CUDA=ON
  "-DCMAKE_CUDA_ARCHITECTURES=${arch%-real}-real"
  "-DPython_EXECUTABLE=$(command -v "$python")"
  "-Dpybind11_DIR=$(cd "$work" && "$python" -m pybind11 --cmakedir)")
if command -v ninja >/dev/null; then configure+=(-G Ninja "-DCMAKE_MAKE_PROGRAM=$(command -v ninja)"); fi

cp -R "$repo/cvops" "$site/"
step "configure for sm_${arch%-real}" 60 "$base-build.log" "${configure[@]}" &&
  step build 180 "$base-build.log" cmake --build "$work/build" --parallel "$(nproc)" &&
  step install 20 "$base-build.log" cmake --install "$work/build" --prefix "$site" &&
  # Away from the repository, whose cvops has no extension.
  cd "$work" &&
  step import 60 "$base-build.log" "$python" -c "
import cvops, cvops._native as native
print(cvops.__file__, native.__file__)
assert cvops.__file__.startswith('$site'), 'another cvops comes first'
assert native.has_cuda, 'built without CUDA'
"
cd "$work" || exit

# --- tests, benchmarks, sanitizers ----------------------------------------------------------------

# The warnings of the versions that happen to be here are no errors.
pytest=("$python" -m pytest -p no:cacheprovider -W default --rootdir "$repo" -c "$repo/pyproject.toml")

# What ran on the GPU, from JUnit's XML, and that something did.
count_gpu_tests() {
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
sanitized="cuda and (test_center_format or test_more_axes or test_first_cell_by_hand \
or test_ties_keep_their_order or test_sets_are_independent or test_more_than_a_tile_of_the_sort \
or test_decodes_by_hand or test_images_are_independent or test_the_example_of_the_book \
or test_the_book or test_images_do_not_touch_one_another or test_mined_negatives \
or test_two_rois or test_tiny_and_huge_rois or test_gradient_is_that_of_the_values)"

if [[ -z $gpu ]]; then
  for step in tests benchmarks sanitizers; do
    say "FAILED $step: not run, there is no GPU here (nvidia-smi names none)"
  done
else
  step tests 160 "$base-tests.log" "${pytest[@]}" "$repo/tests" -k "$tests" \
    --continue-on-collection-errors --junit-xml "$base-tests.xml"
  if [[ -s $base-tests.xml ]]; then
    while IFS= read -r line; do say "$line"; done < <(count_gpu_tests "$base-tests.xml")
  fi

  step benchmarks 230 "$base-benchmarks.log" "${pytest[@]}" "$repo/benchmarks" --seconds 0.3 \
    --table "$base.md" --benchmark-json "$base.json"

  if command -v compute-sanitizer >/dev/null; then
    # Each array in memory of its own, so that what lies beyond it, or was not written, is noticed.
    echo 'import cupy; cupy.cuda.set_allocator(None)' >"$site/without_pool.py"
    for tool in memcheck racecheck initcheck synccheck; do
      step "$tool" 160 "$work/$tool.log" compute-sanitizer --tool "$tool" --target-processes all \
        --require-cuda-init no --error-exitcode 9 \
        "${pytest[@]}" -p without_pool -q "$repo/tests" -k "$sanitized" &
    done
    wait
    for tool in memcheck racecheck initcheck synccheck; do
      printf '\n===== %s =====\n\n' "$tool"
      cat "$work/$tool.log"
      grep -q ' passed' "$work/$tool.log" || say "FAILED $tool: no test ran" >&2
    done >"$base-sanitizers.log"
  else
    say "FAILED sanitizers: no compute-sanitizer on PATH"
  fi
fi

# --- summary --------------------------------------------------------------------------------------

echo
echo "===== $SECONDS s; results in $out ====="
cat "$summary"
grep -hE '^(FAILED|ERROR) ' "$base-tests.log" "$base-benchmarks.log" 2>/dev/null | head -n 20
grep -h 'ERROR SUMMARY\|RACECHECK SUMMARY' "$base-sanitizers.log" 2>/dev/null
! grep -q '^FAILED' "$summary"
