#!/bin/sh
# cuda_table.sh BUILD: what nvcc reported of each kernel, as tests/shim/launch.cc reads it: file, kernel, registers for
# sm_80 and for sm_90, bytes of static shared memory (the most of all architectures), with tabs between them. After a
# change of kernels: tests/gpu/cuda_table.sh build/HASH > tests/shim/kernels.tsv
set -eu
build=${1:?usage: cuda_table.sh BUILD}
cd "$(dirname "$0")/../.."
folder=$(cat "$build/cuda_folder")
[ -n "$folder" ] || { echo "no CUDA kernels were built: nvcc is not on PATH" >&2; exit 2; }
export LC_ALL=C
echo "# nvcc $(cat "$folder/version"): file, kernel, registers for sm_80, for sm_90, static shared memory (tests/gpu/cuda_table.sh)"
for file in ops/*.cu ops/*/*.cu; do
    report=$folder/${file%.cu}.txt
    [ ! -e "$report" ] || awk -v file="$file" '
        /Compiling entry function/ { split($0, part, "\047"); name = part[2]; arch = part[4] }
        /Used [0-9]+ registers/ {
            smem = 0
            for (i = 1; i <= NF; i++) { if ($i ~ /^registers/) regs = $(i - 1); if ($i ~ /^smem/) smem = $(i - 2) }
            if (arch == "sm_80") low[name] = regs + 0
            if (arch == "sm_90" || !(name in high)) high[name] = regs + 0
            if (smem + 0 > most[name] + 0) most[name] = smem + 0
        }
        END { for (n in high) printf "%s\t%s\t%d\t%d\t%d\n", file, n, low[n], high[n], most[n] }' "$report"
done | c++filt | sed 's/\tvoid /\tvoid /' | sort
