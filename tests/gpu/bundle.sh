#!/bin/sh
# bundle.sh: packs what a bare machine with an NVIDIA driver needs to test and time hone: the program, the tests of
# its kernels, goldens, the demo's data, the libraries that are not part of a minimal Debian 12. It lies in
# build/gpu-bundle (and as .tar.gz beside it, at most 64 MB); on the other machine: build/gpu-bundle/test.sh, bench.sh.
set -eu
cd "$(dirname "$0")/../.."
build=${1:?usage: bundle.sh BUILD}
to=build/gpu-bundle
rm -rf "$to" && mkdir -p "$to/lib" "$to/tests"
cp "$build/hone" "$to/hone"
for name in test_cuda test_cuda_ftz test_cuda_run test_golden; do cp "$build/gpu/$name" "$to/tests/$name"; done
cp -r tests/golden "$to/tests/"
cp -r recipes "$to/" && rm -rf "$to/recipes/models" "$to/recipes/report.png"
cp tests/demo.sh tests/gpu/test.sh tests/gpu/bench.sh tests/gpu/peer.py "$to/tests/"
for program in "$to/hone" "$to"/tests/test_*; do ldd "$program"; done | awk '$3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libresolv)\.so' | while read -r library; do
    cp -L "$library" "$to/lib/"
done
strip --strip-debug "$to/hone" "$to"/tests/test_* "$to"/lib/* 2> /dev/null || true
for script in test bench; do
    printf '#!/bin/sh\n# See tests/gpu/%s.sh.\ncd "$(dirname "$0")" && exec sh tests/%s.sh "$@"\n' $script $script > "$to/$script.sh"
    chmod +x "$to/$script.sh"
done
tar -czf "$to.tar.gz" -C build gpu-bundle
size=$(wc -c < "$to.tar.gz")
printf '%s: %d MB (packed %d MB)\n' "$to" "$(($(du -sk "$to" | cut -f1) / 1000))" "$((size / 1000000))"
[ "$size" -le 64000000 ] || { echo "bundle: more than 64 MB" >&2; exit 1; }
