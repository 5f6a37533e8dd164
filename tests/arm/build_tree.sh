#!/bin/sh
# tests/arm/build_tree.sh aarch64|armv7l
#
# An ARM system below .arm/ARCH to run the agent in by emulation: Debian 12's Python, what a device
# installs, and the agent's wheel of this checkout. .arm/ARCH/python is its interpreter.
#
# Nothing is emulated while it is built: packages are unpacked, wheels are chosen by their tags. The
# system is kept until this script or constraints.txt changes; the agent is new every time.
# Needs root, qemu-user-static, mmdebstrap, Python 3.11, Debian's mirror and the package index.
set -eu

case "${1:-}" in
aarch64) debian=arm64 triplet=aarch64-linux-gnu qemu=qemu-aarch64-static packages= ;;
# PyPI has no armv7l wheel of these three: a 32-bit Pi takes Debian's too.
armv7l) debian=armhf triplet=arm-linux-gnueabihf qemu=qemu-arm-static
    packages=,python3-nacl,python3-numpy,python3-psutil ;;
*) echo "usage: $0 aarch64|armv7l" >&2; exit 2 ;;
esac
arch=$1
home=$(cd "$(dirname "$0")/../.." && pwd)
cache=$home/.arm
tree=$cache/$arch
root=$tree/root
python=${PYTHON:-python3.11}

for program in mmdebstrap "$qemu"; do
    command -v "$program" >/dev/null || {
        echo "error: no $program on PATH: apt install qemu-user-static mmdebstrap" >&2; exit 2; }
done
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "error: $python is not Python 3.11, the version of Debian 12: make test-arm PYTHON=/path/to/python3.11" >&2
    exit 2; }

pip_install() { # FOLDER REQUIREMENT…: wheels of this architecture only
    folder=$1; shift
    tags="--platform linux_$arch --platform manylinux2014_$arch"
    for glibc in 17 24 26 27 28 31 34 35 36; do tags="$tags --platform manylinux_2_${glibc}_$arch"; done
    # shellcheck disable=SC2086 # the tags are words
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none $tags \
        --target "$folder" "$@"
}

mirror() { # of this machine, in either format of apt's sources
    awk '/^URIs:/ { print $2; exit } $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) { print $i; exit } }' \
        $(ls /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null)
}

unpack_debian() {
    # "extract" unpacks and configures nothing, so that no ARM program has to run.
    mmdebstrap --quiet --mode=root --architectures=$debian --variant=extract \
        --include="python3,libpython3-stdlib,libgomp1,libstdc++6,ca-certificates$packages" \
        bookworm "$root" "$(mirror)"
    rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/perl \
        "$root"/usr/lib/*/perl* "$root"/usr/lib/*/gconv "$root"/var/lib/apt "$root"/var/cache
}

write_cpuinfo() {
    # qemu shows the host's /proc/cpuinfo, on which ONNX Runtime's CPU detection crashes. A file
    # below QEMU_LD_PREFIX goes first. The fields are those of the kernel's arch/arm*/kernel.
    mkdir -p "$root/proc"
    for core in 0 1; do
        printf 'processor\t: %d\nBogoMIPS\t: 108.00\n' $core
        if [ "$arch" = aarch64 ]; then printf 'Features\t: fp asimd evtstrm crc32 cpuid\nCPU architecture: 8\n'
        else printf 'Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae\nCPU architecture: 7\n'; fi
        printf 'CPU implementer\t: 0x41\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
    done >"$root/proc/cpuinfo"
}

install_wheels() {
    if [ "$arch" = aarch64 ]; then
        pip_install "$tree/site" -c "$home/constraints.txt" "$wheel[onnx,tflite]"
        rm -rf "$tree"/site/trimtab*
    else
        pip_install "$tree/site" -c "$home/constraints.txt" pydantic paho-mqtt
        pip_install "$tree/site" --no-deps tflite-runtime==2.14.0 # its numpy is Debian's
    fi
    "$python" -m compileall -q -j2 --invalidation-mode unchecked-hash -s "$root" -p / \
        "$root/usr/lib/python3.11" "$root/usr/lib/python3" "$tree/site" >/dev/null 2>&1 || true # py2 leftovers
}

write_python() {
    # -0: sys.executable becomes this file, so that the agent's children are emulated too, without
    #     binfmt_misc. PYTHONHOME, because Python otherwise looks for its library beside that name.
    # Whole paths and LD_LIBRARY_PATH, because qemu does not redirect the 32-bit statx by which
    #     Python and ld.so look for folders.
    cat >"$tree/python" <<EOF
#!/bin/sh
export QEMU_LD_PREFIX='$root' PYTHONHOME='$root/usr' PYTHONNOUSERSITE=1 PYTHONPATH='$tree/agent:$tree/site'
exec $qemu -0 '$tree/python' -E LD_LIBRARY_PATH='$root/usr/lib/$triplet:$root/lib/$triplet:$root/usr/lib/$triplet/blas:$root/usr/lib/$triplet/lapack' '$root/usr/bin/python3.11' "\$@"
EOF
    chmod +x "$tree/python"
}

mkdir -p "$cache"
rm -rf "$cache/wheel-$arch"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$cache/wheel-$arch" "$home"
wheel=$(ls "$cache/wheel-$arch"/trimtab-*.whl)

made_of=$(cat "$0" "$home/constraints.txt" | sha256sum)
if [ "$(cat "$tree/made-of" 2>/dev/null)" != "$made_of" ]; then
    rm -rf "$tree"
    mkdir -p "$tree"
    unpack_debian
    write_cpuinfo
    install_wheels
    write_python
    echo "$made_of" >"$tree/made-of"
fi
rm -rf "$tree/agent"
pip_install "$tree/agent" --no-deps "$wheel"
echo "$tree: $("$tree/python" -c 'import platform, sys; print(platform.machine(), "Python", platform.python_version(), sys.executable)')"
