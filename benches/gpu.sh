#!/usr/bin/env bash
# Builds brockett with its CUDA plugin from this checkout, tests it and times it on this machine's GPU.
#
#   benches/gpu.sh [STEP…]     all of them by default, the rest even where one fails
#
#   build      libbrockett, the plugin, the Python package, the C++ tests, in build-gpu/; what is there is not built again
#   probe      rates of this GPU, of the libraries' routines and of brockett on it: one table, in a minute
#   cpp        the C++ typed tests over the true plugin
#   python     the façade tests with PyTorch, CuPy and bare device arrays (pytest -m gpu)
#   memcheck   compute-sanitizer memcheck over the primitives and a part of the façade
#   racecheck  compute-sanitizer racecheck over our own kernels
#   bench      accumulation, from host memory too, and the descrambler
#   bench-svd  truncated and batched decompositions, the spectra of a layer of a large language model
#   bench-large  peers that take minutes, and the spectra of a whole model
#   results    one file of the benches: benches/results/<date>-<gpu>.json (RESULTS names another folder)
#
# Steps stop themselves in time, and what was measured before is kept: `build probe cpp`, `build python racecheck`, `build
# bench bench-svd results` and `build memcheck bench-large results` are four commands of less than nine minutes each. Where
# OUT names a folder, gpu.log there takes what the steps print, results.json the benches as they come, other *.log the rest.
#
# No network is needed. On the machine: nvcc 13, a driver for it, compute-sanitizer, cmake, ninja, a C++20 compiler, python3
# with its headers, and for it: PyTorch and CuPy (CUDA 13), NumPy, SciPy, pybind11, scikit-build-core, pytest,
# pytest-benchmark, ml_dtypes, and array-api-compat (else SciPy's own copy of it is taken). In a folder wheels of the
# checkout, beside it, or where WHEELS says: a scipy-openblas64 wheel; other wheels there are installed as well. The C++
# tests need GoogleTest's source tree in a folder googletest there, or as Debian has it, /usr/src/googletest.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
work=$(realpath -m "${WORK:-$root/build-gpu}")
wheels=${WHEELS:-$root/..}
results=$(realpath -m "${RESULTS:-$root/benches/results}")
jobs=${JOBS:-$(nproc)}
out=$(realpath -m "${OUT:-$work}")
python=$work/venv/bin/python
# One BLAS thread for the references in host memory; OpenBLAS spins, and several threads slow each other down.
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONUNBUFFERED=1
# Plugins of pytest that happen to be installed bring warnings, which are errors in our tests.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1

fail() { echo "gpu.sh: $*" >&2; exit 1; }
need() { command -v "$1" > /dev/null || fail "$1 is needed, and is not on the PATH${2:+ ($2)}"; }

# limited SECONDS COMMAND…: interrupted after that time, so that pytest still writes down what it has measured.
limited() {
  local status=0
  timeout -s INT -k 20 "$1" env --default-signal=INT "${@:2}" || status=$?
  case $status in 124 | 137) echo "gpu.sh: stopped after $1 s: ${*:2:4} …" >&2 ;; esac
  return "$status"
}

find_wheels() {  # wheels beside the checkout, or in its folders wheels and shared
  find -L "$wheels" "$root/wheels" "$root/shared" -maxdepth 1 -name '*.whl' 2> /dev/null | sort -u
}

find_googletest() {
  local folder
  for folder in "$wheels/googletest" "$root/wheels/googletest" "$root/shared/googletest" /usr/src/googletest; do
    [ ! -f "$folder/CMakeLists.txt" ] || { echo "$folder"; return; }
  done
}

cuda_path() { PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer; }  # where they are not on it yet

step_build() {
  cuda_path
  need nvcc "CUDA 13"
  need cmake
  need ninja
  need python3
  mkdir -p "$work"
  # Without pip of its own: that may be a package of its own of this system, and the outer one is seen below.
  [ -x "$python" ] || python3 -m venv --without-pip --system-site-packages "$work/venv" ||
    { rm -rf "$work/venv"; fail "python3 -m venv failed"; }
  # python3 may be of a virtual environment itself, whose packages the new one then has not: let it see them.
  local site
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  python3 -c 'import sys; print("\n".join(p for p in sys.path if p.endswith("-packages")))' > "$site/outer.pth"
  local found=()
  mapfile -t found < <(find_wheels)
  [ "${#found[@]}" = 0 ] || "$python" -m pip install -q --no-index --no-deps --force-reinstall "${found[@]}"
  # CuPy looks for NVIDIA's libraries in the folder of its own environment only, whatever else is on the path.
  local nvidia
  nvidia=$(python3 -c 'import os, sys; print(next((p for p in sys.path if os.path.isdir(p + "/nvidia/cu13")), ""))')
  [ -z "$nvidia" ] || [ -e "$site/nvidia" ] || ln -s "$nvidia/nvidia" "$site/nvidia"
  "$python" -c 'import scipy_openblas64' 2> /dev/null || fail "no scipy-openblas64 wheel in $wheels (WHEELS names the folder)"
  if ! "$python" -c 'import array_api_compat' 2> /dev/null; then
    local copy
    copy=$("$python" -c 'import pathlib, scipy
print(next(iter(pathlib.Path(scipy.__file__).parent.glob("_*/array_api_compat")), ""))')
    [ -z "$copy" ] || ln -sfn "$copy" "$site/array_api_compat"
    "$python" -c 'import array_api_compat' || fail "array-api-compat is needed (a wheel in $wheels)"
  fi
  "$python" - << 'END'
import importlib.util, pathlib, sys, sysconfig
def missing(*names):
    return ", ".join(name for name in names if importlib.util.find_spec(name) is None)
if not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file():
    sys.exit(f"gpu.sh: the headers of Python {sysconfig.get_python_version()} are needed")
if absent := missing("numpy", "scipy", "pybind11", "scikit_build_core"):
    sys.exit(f"gpu.sh: needed, and not installed: {absent}")
if absent := missing("torch", "cupy", "pytest", "pytest_benchmark", "ml_dtypes"):
    print(f"gpu.sh: not installed, later steps need or use it: {absent}")
END
  # One tree for everything, so that nothing is compiled twice: the package is put together from it as a wheel would be.
  local tests=OFF source
  source=$(find_googletest)
  if [ -n "$source" ] && [ ! -d "$work/googletest" ]; then
    {
      cmake -S "$source" -B "$work/googletest-build" -G Ninja -DCMAKE_INSTALL_PREFIX="$work/googletest" \
        -DCMAKE_INSTALL_LIBDIR=lib -DBUILD_GMOCK=OFF
      cmake --build "$work/googletest-build" --target install -j "$jobs"
    } > "$out/build.log" 2>&1 || { tail -n 20 "$out/build.log"; fail "GoogleTest in $source does not build"; }
  fi
  [ ! -d "$work/googletest" ] || tests=ON
  # The architecture of this GPU alone where there is one: the other six would be compiled for nothing.
  local arch=
  if command -v nvidia-smi > /dev/null; then
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -n 1 | tr -d '.') || arch=
  fi
  BROCKETT_CUDA=ON SKBUILD_BUILD_DIR=$work/cmake CMAKE_GENERATOR=Ninja CMAKE_BUILD_PARALLEL_LEVEL=$jobs \
    SKBUILD_CMAKE_ARGS="-DPython_EXECUTABLE=$python;-DBROCKETT_BLAS=scipy-openblas64;-DBROCKETT_BUILD_TESTS=$tests;\
-DCMAKE_PREFIX_PATH=$work/googletest${arch:+;-DCMAKE_CUDA_ARCHITECTURES=$arch}" \
    "$python" -m pip install -v --no-index --no-build-isolation --no-deps --force-reinstall . >> "$out/build.log" 2>&1 ||
    { grep -E -A 8 'FAILED|error:|Error' "$out/build.log" | head -n 40; tail -n 30 "$out/build.log"; fail "the build failed"; }
  (cd "$work" && "$python" -c 'import brockett as bk; print("\n".join(map(str, bk.engines().values())))')
}

on_gpu() {  # the package, from outside the checkout, or stop with its reason
  [ -x "$python" ] || fail "run the step build first"
  (cd "$work" && "$python" -c '
import sys, brockett as bk
info = bk.engines()["cuda"]
sys.exit(0 if info.available else f"gpu.sh: no GPU to work on: {info.reason}")')
}

typed_tests() {  # the C++ tests of typed suites
  grep -lE 'TYPED_TEST_SUITE\(.*(Engines|Backends), ' "$root"/tests/cpp/test_*.cpp | xargs -n 1 basename | sed 's/\.cpp$//'
}

true_plugin() {
  find "$work/cmake" -name libbrockett_cuda.so | head -n 1
}

step_probe() {
  on_gpu
  limited 150 "$python" benches/gpu_probe.py
}

step_cpp() {
  on_gpu
  [ -d "$work/googletest" ] || fail "the C++ tests need GoogleTest: its source in $wheels/googletest, then build again"
  local test count=0 failed=()
  : > "$out/cpp.log"
  for test in $(typed_tests); do
    count=$((count + 1))
    if BROCKETT_TEST_CUDA=real BROCKETT_CUDA_PLUGIN=$(true_plugin) limited 60 "$work/cmake/tests/cpp/$test" \
      --gtest_filter='*/cuda*' --gtest_brief=1 > "$work/$test.log" 2>&1; then
      printf '%-28s %s\n' "$test" "$(tail -n 1 "$work/$test.log")"
    else
      failed+=("$test")
      echo "--- $test"
      grep -v '^\[=' "$work/$test.log" | head -n 12 | cut -c 1-200  # all of it is in cpp.log
    fi
    cat "$work/$test.log" >> "$out/cpp.log"
  done
  echo "$((count - ${#failed[@]})) of $count programs passed"
  [ "${#failed[@]}" = 0 ] || fail "failed: ${failed[*]}"
}

step_python() {
  on_gpu
  # In three processes: after a kernel that fails the device answers no call of its process any more.
  local part status=0
  for part in torch cupy 'not torch and not cupy'; do
    echo "--- $part"
    limited 120 "$python" -m pytest -m gpu tests/python/test_gpu.py -k "$part" -q --tb=short --maxfail=15 --durations=4 \
      -p no:cacheprovider || status=$?
  done
  return "$status"
}

sanitize() {  # sanitize SECONDS TOOL COMMAND…
  need compute-sanitizer "part of the CUDA toolkit"
  local options=()
  case $2 in
    memcheck) options=(--report-api-errors no --track-stream-ordered-races all) ;;  # tests run out of memory on purpose
    racecheck) options=(--kernel-name kernel_substring=brockett) ;;  # not the libraries' kernels: slow, and not ours
  esac
  limited "$1" compute-sanitizer --tool "$2" --error-exitcode 9 --launch-timeout 0 --print-limit 20 "${options[@]}" "${@:3}"
}

sanitize_both() {  # sanitize_both TOOL SECONDS SECONDS EXPRESSION: the primitives, and cases of the façade
  cuda_path
  on_gpu
  local status=0
  if [ -d "$work/googletest" ]; then
    BROCKETT_TEST_CUDA=real BROCKETT_CUDA_PLUGIN=$(true_plugin) \
      sanitize "$2" "$1" "$work/cmake/tests/cpp/test_linalg" --gtest_filter='*/cuda*' --gtest_brief=1 || status=$?
  fi
  # Without PyTorch: its allocator keeps memory mapped, and what is out of bounds of one tensor lies within the pool.
  BROCKETT_TEST_DEVICE_LIBRARIES=brockett sanitize "$3" "$1" "$python" -m pytest -q --tb=short -p no:cacheprovider \
    tests/python/device_cases.py tests/python/device_topics.py -k "$4" || status=$?
  return "$status"
}

step_memcheck() {
  sanitize_both memcheck 90 90 \
    'autocorrelation or svd or descramble_sources or diagonalize or streamed or patches or convolution or many'
}

step_racecheck() {
  sanitize_both racecheck 80 80 'test_autocorrelation or test_precisions or test_penalties or test_patches'
}

# bench FILE SECONDS MARKS EXPRESSION: a process and a file for each, so that one that fails or is stopped leaves the others.
bench() {
  local status=0
  (cd benches && limited "$2" "$python" -m pytest bench_gpu.py -p pytest_benchmark.plugin -p no:cacheprovider -q --tb=short \
    -m "$3" -k "$4" --benchmark-json="$work/$1.json") > "$work/$1.log" 2>&1 || status=$?
  [ "$status" = 0 ] || { echo "--- $1"; tail -n 25 "$work/$1.log"; }
  [ ! -s "$work/$1.json" ] || "$python" benches/table.py --print "$work/$1.json" | tail -n +5
  [ -z "${OUT:-}" ] || merged "$out/results.json" > /dev/null
  return "$status"
}

benches() {  # benches MARKS SUFFIX NAME:SECONDS…
  on_gpu
  local each failed=()
  for each in "${@:3}"; do
    bench "bench-${each%:*}$2" "${each#*:}" "$1" "bench_${each%:*}" || failed+=("${each%:*}")
  done
  [ "${#failed[@]}" = 0 ] || fail "failed: ${failed[*]}"
}

step_bench() { benches "gpu and not large" "" accumulate:120 from_host:60 descramble:100; }
step_bench-svd() { benches "gpu and not large" "" truncated:90 batch:60 llama:60; }
step_bench-large() { benches "gpu and large" -large batch:60 llama:140 truncated:150; }

merged() {  # merged FILE|FOLDER: the benches of $work as one file; its name is printed
  "$python" - "$work" "$1" << 'END'
import json, re, sys
from pathlib import Path

work, place = map(Path, sys.argv[1:])
names = sorted(work.glob("bench-*.json"), key=lambda path: ("large" in path.stem, path.name))
found = {}
for path in names:
    try:
        found[path.name] = json.loads(path.read_text())
    except ValueError:  # of a process that was killed
        print(f"gpu.sh: {path.name} is not whole and is left out", file=sys.stderr)
if not found:
    sys.exit("gpu.sh: nothing was timed yet: run the steps bench, bench-svd and bench-large")

def of(one):
    return one["machine_info"]["gpu"], one.get("commit_info", {}).get("id")

newest = max(found.values(), key=lambda one: one["datetime"])
whole = None
for name, one in found.items():
    if of(one) != of(newest):
        print(f"gpu.sh: {name} is of another GPU or commit and is left out", file=sys.stderr)
    elif whole is None:
        whole = one
    else:
        whole["benchmarks"] += one["benchmarks"]
for one in whole["benchmarks"]:
    one["stats"].pop("data", None)
if place.is_dir():
    gpu = re.sub(r"[^a-z0-9]+", "-", whole["machine_info"]["gpu"].partition(",")[0].lower()).strip("-")
    place /= f"{whole['datetime'][:10]}-{gpu}.json"
place.write_text(json.dumps(whole, indent=1) + "\n")
print(place)
END
}

step_results() {
  [ -x "$python" ] || fail "run the step build first"
  mkdir -p "$results"
  local file
  file=$(merged "$results")
  [ -z "${OUT:-}" ] || cp "$file" "$out/results.json"
  "$python" benches/table.py --print "$file"
  echo "$file"
}

steps=(build probe cpp python racecheck memcheck bench bench-svd bench-large results)
[ $# -gt 0 ] || set -- "${steps[@]}"
for name in "$@"; do
  case " ${steps[*]} " in *" $name "*) ;; *) fail "unknown step $name; there are: ${steps[*]}" ;; esac
done
mkdir -p "$work" "$out"
log() { if [ -n "${OUT:-}" ]; then tee -a "$out/gpu.log"; else cat; fi; }
finish() { printf '=== %s: %d s\n' "$name" $((SECONDS - start)); }
if [ $# = 1 ]; then
  {
    name=$1 start=$SECONDS
    trap finish EXIT
    printf '\n=== %s\n' "$name"
    "step_$name"
  } 2>&1 | log
  exit
fi
failed=()
for name in "$@"; do  # each in a process of its own, where a command that fails ends the step
  bash benches/gpu.sh "$name" || failed+=("$name")
done
[ "${#failed[@]}" = 0 ] || fail "failed: ${failed[*]}"
