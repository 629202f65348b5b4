#!/usr/bin/env bash
# Builds brockett with its CUDA plugin from this checkout, tests it and times it on this machine's GPU.
#
#   benches/gpu.sh [STEP…]     all of them by default, the rest even where one fails; made for less than nine minutes each
#
#   build      libbrockett, the plugin, the Python package, the C++ tests, in build-gpu/
#   cpp        the C++ typed tests over the true plugin
#   python     the façade tests with PyTorch, CuPy and bare device arrays (pytest -m gpu)
#   memcheck   compute-sanitizer memcheck over the primitives and a part of the façade
#   racecheck  compute-sanitizer racecheck over our own kernels
#   bench      rates, accumulation, descrambler
#   bench-svd  truncated and batched decompositions
#   bench-llama  the spectra of a large language model
#   results    one file of the benches: benches/results/<date>-<gpu>.json (RESULTS names another folder)
#
# No network is needed. On the machine: nvcc 13, a driver for it, compute-sanitizer, cmake, ninja, a C++20 compiler, and for
# its python3: PyTorch and CuPy (CUDA 13), NumPy, SciPy, pybind11, scikit-build-core, pytest, pytest-benchmark, ml_dtypes,
# and array-api-compat (else SciPy's own copy of it is taken). Beside the checkout, or in the folder that WHEELS names: a
# scipy-openblas64 wheel; other wheels there are installed as well. The C++ tests need GoogleTest: installed, or its
# source tree in the folder googletest there (Debian has it as /usr/src/googletest).
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
work=${WORK:-$root/build-gpu}
wheels=${WHEELS:-$root/..}
results=${RESULTS:-$root/benches/results}
jobs=${JOBS:-$(nproc)}
python=$work/venv/bin/python
# One BLAS thread for the references in host memory; OpenBLAS spins, and several threads slow each other down.
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

fail() { echo "gpu.sh: $*" >&2; exit 1; }
need() { command -v "$1" > /dev/null || fail "$1 is needed, and is not on the PATH${2:+ ($2)}"; }

find_wheels() {  # wheels beside the checkout, or in its folders wheels and shared
  find -L "$wheels" "$root/wheels" "$root/shared" -maxdepth 1 -name '*.whl' 2> /dev/null | sort -u
}

find_googletest() {
  local folder
  for folder in "$wheels/googletest" "$root/wheels/googletest" "$root/shared/googletest" /usr/src/googletest; do
    [ ! -f "$folder/CMakeLists.txt" ] || { echo "$folder"; return; }
  done
}

cuda_path() {
  if ! command -v nvcc > /dev/null && [ -x /usr/local/cuda/bin/nvcc ]; then PATH=$PATH:/usr/local/cuda/bin; fi
}

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
  "$python" -c 'import scipy_openblas64' 2> /dev/null || fail "no scipy-openblas64 wheel in $wheels (WHEELS names the folder)"
  if ! "$python" -c 'import array_api_compat' 2> /dev/null; then
    local copy
    copy=$("$python" -c 'import pathlib, scipy
print(next(iter(pathlib.Path(scipy.__file__).parent.glob("_*/array_api_compat")), ""))')
    [ -z "$copy" ] || ln -sfn "$copy" "$site/array_api_compat"
    "$python" -c 'import array_api_compat.torch' || fail "array-api-compat is needed (a wheel in $wheels)"
  fi
  # One tree for everything, so that the plugin is compiled once; the package is put together from it as a wheel would be.
  local tests=OFF source
  source=$(find_googletest)
  if [ -n "$source" ] && [ ! -d "$work/googletest" ]; then
    cmake -S "$source" -B "$work/googletest-build" -G Ninja -DCMAKE_INSTALL_PREFIX="$work/googletest" -DBUILD_GMOCK=OFF
    cmake --build "$work/googletest-build" --target install -j "$jobs"
  fi
  [ ! -d "$work/googletest" ] || tests=ON
  # The architecture of this GPU alone where there is one: the other six would be compiled for nothing.
  local arch=
  if command -v nvidia-smi > /dev/null; then
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -n 1 | tr -d '.') || arch=
  fi
  cmake -S . -B "$work/cmake" -G Ninja -DBROCKETT_CUDA=ON -DBROCKETT_BLAS=scipy-openblas64 -DPython_EXECUTABLE="$python" \
    -DBROCKETT_BUILD_PYTHON=ON -DBROCKETT_BUILD_TESTS="$tests" -DCMAKE_PREFIX_PATH="$work/googletest" \
    -DCMAKE_INSTALL_LIBDIR=lib ${arch:+"-DCMAKE_CUDA_ARCHITECTURES=$arch"}
  cmake --build "$work/cmake" -j "$jobs"
  "$python" -m pip uninstall -q -y brockett > /dev/null 2>&1 || true
  SKBUILD_CMAKE_ARGS="-DPython_EXECUTABLE=$python${arch:+;-DCMAKE_CUDA_ARCHITECTURES=$arch}" BROCKETT_CUDA=ON \
    "$python" -m pip install -q --no-index --no-build-isolation --no-deps .
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

step_cpp() {
  on_gpu
  [ -d "$work/googletest" ] || fail "the C++ tests need GoogleTest: its source in $wheels/googletest, then build again"
  local test
  for test in $(typed_tests); do
    echo "--- $test"
    BROCKETT_TEST_CUDA=real BROCKETT_CUDA_PLUGIN=$(true_plugin) "$work/cmake/tests/cpp/$test" --gtest_filter='*/cuda*' --gtest_brief=1
  done
}

step_python() {
  on_gpu
  "$python" -m pytest -m gpu tests/python/test_gpu.py -q -p no:cacheprovider
}

sanitize() {  # sanitize TOOL COMMAND…
  need compute-sanitizer "part of the CUDA toolkit"
  local options=()
  case $1 in
    memcheck) options=(--report-api-errors no) ;;  # tests run out of memory on purpose
    racecheck) options=(--kernel-name kernel_substring=brockett) ;;  # not the libraries' kernels: slow, and not ours
  esac
  compute-sanitizer --tool "$1" --error-exitcode 9 --launch-timeout 0 "${options[@]}" "${@:2}"
}

step_memcheck() {
  cuda_path
  on_gpu
  if [ -d "$work/googletest" ]; then
    BROCKETT_TEST_CUDA=real BROCKETT_CUDA_PLUGIN=$(true_plugin) \
      sanitize memcheck "$work/cmake/tests/cpp/test_linalg" --gtest_filter='*/cuda*' --gtest_brief=1
  fi
  # Without PyTorch: its allocator keeps memory mapped, and what is out of bounds of one tensor lies within the pool.
  BROCKETT_TEST_DEVICE_LIBRARIES=brockett sanitize memcheck "$python" -m pytest -q -p no:cacheprovider \
    tests/python/device_cases.py -k 'autocorrelation or svd or descramble_sources or diagonalize or streamed'
}

step_racecheck() {
  cuda_path
  on_gpu
  if [ -d "$work/googletest" ]; then
    BROCKETT_TEST_CUDA=real BROCKETT_CUDA_PLUGIN=$(true_plugin) \
      sanitize racecheck "$work/cmake/tests/cpp/test_linalg" --gtest_filter='*/cuda*' --gtest_brief=1
  fi
  BROCKETT_TEST_DEVICE_LIBRARIES=brockett sanitize racecheck "$python" -m pytest -q -p no:cacheprovider \
    tests/python/device_cases.py -k 'test_autocorrelation or test_precisions or test_penalties'
}

bench() {  # bench NAME EXPRESSION
  on_gpu
  (cd benches && "$python" -m pytest bench_gpu.py -q -p no:cacheprovider -m gpu -k "$2" --benchmark-json="$work/$1.json")
}

step_bench() { bench bench 'accumulate or host or descramble'; }
step_bench-svd() { bench bench-svd 'truncated or batch'; }
step_bench-llama() { bench bench-llama llama; }

step_results() {
  [ -x "$python" ] || fail "run the step build first"
  mkdir -p "$results"
  "$python" - "$work" "$results" << 'END'
import json, re, sys
from pathlib import Path

work, results = map(Path, sys.argv[1:])
found = [json.loads(path.read_text()) for path in (work / f"{name}.json" for name in ("bench", "bench-svd", "bench-llama")) if path.is_file()]
if not found:
    sys.exit("gpu.sh: nothing was timed yet: run the steps bench, bench-svd and bench-llama")
whole = found[0]
for other in found[1:]:
    whole["benchmarks"] += other["benchmarks"]
for one in whole["benchmarks"]:
    one["stats"].pop("data", None)
gpu = re.sub(r"[^a-z0-9]+", "-", whole["machine_info"]["gpu"].partition(",")[0].lower()).strip("-")
path = results / f"{whole['datetime'][:10]}-{gpu}.json"
path.write_text(json.dumps(whole, indent=1) + "\n")
print(path)
END
}

steps=(build cpp python memcheck racecheck bench bench-svd bench-llama results)
[ $# -gt 0 ] || set -- "${steps[@]}"
for name in "$@"; do
  case " ${steps[*]} " in *" $name "*) ;; *) fail "unknown step $name; there are: ${steps[*]}" ;; esac
done
if [ $# = 1 ]; then
  start=$SECONDS
  printf '\n=== %s\n' "$1"
  "step_$1"
  printf '=== %s: %d s\n' "$1" $((SECONDS - start))
  exit
fi
failed=()
for name in "$@"; do  # each in a process of its own, where a command that fails ends the step
  bash benches/gpu.sh "$name" || failed+=("$name")
done
[ "${#failed[@]}" = 0 ] || fail "failed: ${failed[*]}"
