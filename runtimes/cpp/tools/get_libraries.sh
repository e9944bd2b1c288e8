#!/bin/sh
# Put ONNX Runtime for C++ and nlohmann-json into a folder, on a Debian machine that has no packages of them: the headers
# of a later Debian release, and the library that the Python package onnxruntime brings.
#
#   get_libraries.sh FOLDER [PYTHON [MACHINE]]
#
# PYTHON, by default python3, has that package. With a MACHINE, such as aarch64, the library is that of the package of the
# same version for that machine, which pip downloads: for cross-compiling.
#
# FOLDER/include and FOLDER/lib are what -DONNXRUNTIME_ROOT=FOLDER takes, and FOLDER is a prefix for CMAKE_PREFIX_PATH. Root
# is not needed, nothing is installed and apt's own lists stay as they are: the packages are looked up in the machine's
# own mirror, with lists of their own, checked with Debian's keys as always. A folder that is complete is left alone.
# ONNX Runtime's C API only grows, so headers that are older than the library do.
set -eu

release=forky
folder=${1:?usage: get_libraries.sh FOLDER [PYTHON [MACHINE]]}
python=${2:-python3}
machine=${3:-}
[ "$(cat "$folder/complete" 2> /dev/null)" != "$release" ] || exit 0

fail() {
  echo "get_libraries.sh: $1" >&2
  exit 1
}

command -v apt-get > /dev/null || fail "needs apt-get"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)  # apt takes no paths with spaces, which the folder's may have
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/parts" "$work/unpacked"
own="-o Dir::Cache=$work -o Dir::State::Lists=$work/lists -o APT::Sandbox::User=$(id -un) -o Acquire::Languages=none"

mirror_of() {
  apt-get indextargets "$@" --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1
}
mirror=$(mirror_of)
if [ -z "$mirror" ]; then  # images of containers come without lists
  apt-get -qq $own update > /dev/null 2>&1 || true
  mirror=$(mirror_of $own)
fi
[ -n "$mirror" ] || fail "apt knows no Debian mirror that answers"

keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror $release main" > "$work/sources.list"
own="$own -o Dir::Etc::SourceList=$work/sources.list -o Dir::Etc::SourceParts=$work/parts"
apt-get -qq $own update
(cd "$work" && apt-get -qq $own download libonnxruntime-dev nlohmann-json3-dev)
for package in "$work"/*.deb; do dpkg -x "$package" "$work/unpacked"; done

if [ -n "$machine" ]; then
  version=$("$python" -c 'from importlib.metadata import version; print(version("onnxruntime"))')
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" \
    --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" "onnxruntime==$version"
  "$python" -m zipfile -e "$work"/onnxruntime-*.whl "$work/wheel"
  package="$work/wheel/onnxruntime"
else
  package=$("$python" -c '
import importlib.util, pathlib
spec = importlib.util.find_spec("onnxruntime")
print(pathlib.Path(spec.origin).parent if spec else "")')
fi
library=$(find "$package/capi" -name 'libonnxruntime.so.*' | sort | tail -n 1)
[ -n "$library" ] || fail "$python has no onnxruntime with libonnxruntime.so; expected the package onnxruntime"
own_api=$(basename "$library" | cut -d . -f 4)
api=$(grep -rhoE '#define ORT_API_VERSION [0-9]+' "$work/unpacked/usr/include" | grep -oE '[0-9]+$')
[ "$api" -le "$own_api" ] || fail "Debian's headers are of ONNX Runtime 1.$api; expected the package onnxruntime of 1.$api or later"

rm -rf "$folder/include" "$folder/lib" "$folder/share"
mkdir -p "$folder/lib"
mv "$work/unpacked/usr/include" "$work/unpacked/usr/share" "$folder/"
cp "$library" "$folder/lib/"
name=$(basename "$library")
# The library's own name (SONAME), and the one that a linker looks for.
ln -sf "$name" "$folder/lib/libonnxruntime.so.1"
ln -sf "$name" "$folder/lib/libonnxruntime.so"
echo "$release" > "$folder/complete"
