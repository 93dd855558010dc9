#!/bin/sh
# Builds a wheel of pycuda, which is published as source only, on a machine without GPU, driver or CUDA.
#
#     benchmarks/gpu/build_pycuda.sh OUT [PYTHON]
#
# OUT gets the wheel for the given Python (default: python3), which may be another version than the project's.
# Needs a C++ compiler, uv, and about 400 MB for the CUDA headers and compiler, which come as wheels from the
# configured package index into a folder that is removed at the end. Random numbers (cuRAND) are left out:
# nothing here uses them, and with them `import pycuda.driver` would want libcurand beside the driver.
set -eu

VERSION=2026.1
CUDA=13.0

[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
python=${2:-python3}
for tool in uv "${CXX:-g++}" "${CC:-gcc}"; do
    command -v "$tool" >/dev/null || { echo "building pycuda needs $tool; install it and try again" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "$python" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" pip setuptools wheel "numpy>=2" \
    "nvidia-cuda-nvcc==$CUDA.*" "nvidia-cuda-crt==$CUDA.*" "nvidia-nvvm==$CUDA.*" \
    "nvidia-cuda-runtime==$CUDA.*" "nvidia-cuda-cccl==$CUDA.*" "nvidia-cuda-profiler-api==$CUDA.*"
cuda=$("$work/env/bin/python" -c 'import nvidia.cu13 as n; print(list(n.__path__)[0])')

# The linker wants a driver library. This one defines every function that the header declares, so that the
# real libcuda.so.1 is recorded as needed; nothing of it is in the wheel.
mkdir -p "$cuda/lib/stubs"
grep -oE '\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?(_ptsz|_ptds)?\b' "$cuda/include/cuda.h" "$cuda/include/cudaProfiler.h" \
    | sed 's/.*://' | sort -u | sed 's/.*/void &(void) {}/' >"$work/driver.c"
"${CC:-gcc}" -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$cuda/lib/stubs/libcuda.so" "$work/driver.c"

"$work/env/bin/python" -m pip download --quiet --no-deps --no-binary pycuda --dest "$work" "pycuda==$VERSION"
tar -xzf "$work/pycuda-$VERSION.tar.gz" -C "$work"
cd "$work/pycuda-$VERSION"
"$work/env/bin/python" configure.py --no-cuda-enable-curand --cuda-root="$cuda" \
    --cudadrv-lib-dir="$cuda/lib/stubs" >/dev/null
PATH=$cuda/bin:$PATH "$work/env/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$out" .
ls -l "$out"/pycuda-"$VERSION"-*.whl
