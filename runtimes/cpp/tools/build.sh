#!/bin/sh
# Build a preset of CMakePresets.json, or some targets of it, into build/cpp/PRESET of the repository. The demo, `make cpp`
# and the tests do it with this script.
#
#   [PYTHON=...] [ONNXRUNTIME_ROOT=...] build.sh PRESET [TARGET...]
#
# PYTHON, by default that of .venv, has the package onnxruntime, and may have cmake and ninja beside it. What is neither
# installed nor named comes from get_libraries.sh. Where a machine lacks something, the last line on stderr says what and
# how to get it, and the exit status is 3.
set -eu

preset=${1:?usage: build.sh PRESET [TARGET...]}
shift
cd "$(dirname "$0")/../../.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3)
PATH="$(cd "$(dirname "$python")" && pwd):$PATH"
folder=build/cpp/$preset
machine=
compiler=${CXX:-c++}
package=g++

needs() {
  echo "the C++ runtime needs $1" >&2
  exit 3
}

case $preset in
  fuzz) compiler=clang++ package=clang ;;
  aarch64*) compiler=aarch64-linux-gnu-g++ package=g++-aarch64-linux-gnu machine=aarch64 ;;
esac
command -v "$compiler" > /dev/null || needs "the compiler $compiler; on Debian: apt-get install $package"
command -v cmake > /dev/null || needs "cmake 3.21 or later; pip install cmake"

# Where a machine has flock, a second process waits here for the first.
mkdir -p build/cpp
if command -v flock > /dev/null; then
  exec 9> build/cpp/.lock
  flock 9
fi

libraries=build/libraries${machine:+-$machine}
has_json() { echo '#include <nlohmann/json.hpp>' | "$compiler" -E -x c++ - > /dev/null 2>&1; }
has_onnxruntime() { [ -n "${ONNXRUNTIME_ROOT:-}" ] || pkg-config --exists libonnxruntime 2> /dev/null; }
if [ -n "$machine" ] || ! has_json || ! has_onnxruntime; then
  sh runtimes/cpp/tools/get_libraries.sh "$libraries" "$python" $machine ||
    needs "nlohmann-json (Debian: nlohmann-json3-dev) and ONNX Runtime (name an unpacked release in ONNXRUNTIME_ROOT)"
  export CMAKE_PREFIX_PATH="$PWD/$libraries"
  if [ -n "$machine" ] || ! has_onnxruntime; then export ONNXRUNTIME_ROOT="$PWD/$libraries"; fi
fi

# A folder keeps the generator that it was made with.
if [ ! -e "$folder/CMakeCache.txt" ] && command -v ninja > /dev/null; then export CMAKE_GENERATOR=Ninja; fi
(cd runtimes/cpp && cmake --preset "$preset")
[ $# = 0 ] || set -- --target "$@"
cmake --build "$folder" --parallel 2 "$@"
echo "$folder"
