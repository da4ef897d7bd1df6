#!/usr/bin/env bash
# The vector emitter's tests and the convolutions' quick ones at four lanes (NEON): on Debian's arm64 Python under
# qemu-user. It shows that the kernels are correct on ARM; nothing about their speed. Not a part of .ci/run: it takes
# tens of minutes. Needs Debian with qemu-user-static, and PyPI; changes nothing outside the folder that it works in.
#
# scripts/on_arm.sh [FOLDER]     FOLDER (about 1 GB) is kept and used again; without it a temporary one is deleted.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v qemu-aarch64-static >/dev/null || { echo "install qemu-user-static first" >&2; exit 1; }
if [ $# -gt 0 ]; then work=$(mkdir -p "$1" && cd "$1" && pwd); else work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; fi

if [ ! -e "$work/complete" ]; then
    echo "== Debian's arm64 Python"
    mkdir -p "$work"/apt/{state/lists/partial,cache/archives/partial} "$work/root"
    touch "$work/apt/status"
    apt=(apt-get --quiet=2 -o Dir::State="$work/apt/state" -o Dir::State::status="$work/apt/status"
        -o Dir::Cache="$work/apt/cache" -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root)
    "${apt[@]}" update
    "${apt[@]}" install --yes --download-only --no-install-recommends python3 libstdc++6
    for package in "$work"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/root"; done
fi
interpreter=$(echo "$work"/root/usr/bin/python3.?*)
version=${interpreter##*python}

if [ ! -e "$work/complete" ]; then
    echo "== packages for Python $version on aarch64"
    mapfile -t needed < <(python3 -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
tests = ("pytest", "hypothesis")
print(*project["dependencies"], *(one for one in project["optional-dependencies"]["dev"] if one.startswith(tests)), sep="\n")')
    platforms=()
    for glibc in 2_17 2_26 2_27 2_28; do platforms+=(--platform "manylinux_${glibc}_aarch64"); done
    python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" --only-binary=:all: \
        --python-version "$version" --platform manylinux2014_aarch64 "${platforms[@]}" "${needed[@]}"
    touch "$work/complete"
fi

run() { FACECNN_CACHE_DIR="$work/cache" PYTHONPATH="$PWD:$work/site" qemu-aarch64-static -L "$work/root" "$interpreter" "$@"; }
echo "== the emitter and the convolutions"
run -c 'from facecnn.kernels.cpu.vector_ir import lanes
print("lanes:", lanes.of_processor())
assert lanes.of_processor() == 4'
run -m pytest -p no:xdist tests/kernels/test_emit.py tests/contract/test_conv.py -m "not slow"
