#!/bin/sh
# Make the folder that the device qemu:DIR runs in: Debian 12 for arm64, as far as Python needs it, with NumPy and
# tflite-runtime. Nothing in it is started while it is made, so no binfmt and no chroot are needed.
#
#     apt install qemu-user-static debootstrap
#     device_bench/make_arm_root.sh DIR [MIRROR]
#
# Needs root (debootstrap does), a Python with pip as PYTHON (python3), and about 400 MB of disk while it works, 300 MB after.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 DIR [MIRROR]" >&2; exit 2; }
dir=$1 mirror=${2:-http://deb.debian.org/debian}
for tool in debootstrap dpkg qemu-aarch64-static "${PYTHON:-python3}"; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: apt install qemu-user-static debootstrap" >&2; exit 1; }
done
[ ! -e "$dir" ] || { echo "$dir is there already: remove it, or name another folder" >&2; exit 1; }
trap '[ $? -eq 0 ] || rm -rf "$dir"' EXIT  # no half a root

debootstrap --arch=arm64 --foreign --variant=minbase --include=python3-minimal,libpython3-stdlib bookworm "$dir" "$mirror"
# The second stage would run Arm programs; unpacking is enough.
for deb in "$dir"/var/cache/apt/archives/*.deb; do
    dpkg -x "$deb" "$dir"
done
rm -rf "$dir"/var/cache/apt/archives "$dir"/debootstrap
# tflite-runtime 2.14 is built for NumPy 1. The newer ai-edge-litert crashes on this emulated core (2.3, on import).
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
    --target "$dir/usr/lib/python3/dist-packages" --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_34_aarch64 --platform manylinux_2_17_aarch64 tflite-runtime==2.14.0 numpy==1.26.4
qemu-aarch64-static -cpu cortex-a72 -L "$dir" "$dir/usr/bin/python3.11" -I -c \
    'import numpy; from tflite_runtime.interpreter import Interpreter; print("NumPy", numpy.__version__, "and tflite-runtime start")'
