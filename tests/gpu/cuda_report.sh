#!/bin/sh
# cuda_report.sh BUILD [check]: what the compiler made of each CUDA kernel for sm_90: registers, spilled bytes, static
# shared memory, blocks of the kernel's size (or of 256 threads) that registers let onto a multiprocessor, and how many
# of its instructions are products on tensor cores and fused multiply-adds. With `check`: nothing but what breaks a
# bound: no spills and at most 255 registers (on every architecture), tensor instructions in kernels named `mma`.
set -eu
build=${1:?usage: cuda_report.sh BUILD [check]} mode=${2:-print}
cd "$(dirname "$0")/../.."
folder=$(cat "$build/cuda_folder")
if [ -z "$folder" ]; then
    [ "$mode" = check ] || echo "no CUDA kernels were built: nvcc is not on PATH"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$build/tests/gpu/sass" "$folder"/ops/*.o "$folder"/ops/*/*.o | sort -u > "$work/sass"
[ "$mode" = check ] || printf '%-70s %4s %6s %6s %6s %7s %7s %6s\n' kernel regs spills shared blocks instr tensor ffma
cat "$folder"/ops/*.txt "$folder"/ops/*/*.txt | awk -v sass="$work/sass" -v other="$work/other" '
    BEGIN { while ((getline line < sass) > 0) { split(line, w, " "); found[w[1]] = w[2] " " w[3] " " w[4] } }
    /Compiling entry function/ { split($0, part, "\047"); name = part[2]; arch = part[4]; spill = 0 }
    /bytes spill stores/ { for (i = 1; i <= NF; i++) if ($i == "spill") spill += $(i - 2) }
    /Used [0-9]+ registers/ {
        smem = 0
        for (i = 1; i <= NF; i++) { if ($i ~ /^registers/) regs = $(i - 1); if ($i ~ /^smem/) smem = $(i - 2) }
        if (arch != "sm_90" && (spill || regs > 255)) print arch, name, spill > other
        if (arch == "sm_90") print name, regs + 0, spill + 0, smem + 0, name in found ? found[name] : "0 0 0"
    }' | sort -u | c++filt -n -i 2> /dev/null > "$work/rows" || true
while read -r line; do
    set -- $(echo "$line" | awk '{ print $(NF - 5), $(NF - 4), $(NF - 3), $(NF - 2), $(NF - 1), $NF }')
    name=$(echo "$line" | sed 's/ [0-9]* [0-9]* [0-9]* [0-9]* [0-9]* [0-9]*$//; s/^void //; s/([a-z_]*)\([0-9]\)/\1/g; s/(.*//' | cut -c1-70)
    blocks=$((65536 / (($1 + 7) / 8 * 8 * 256)))
    [ "$blocks" -gt 8 ] && blocks=8
    [ "$mode" = check ] || printf '%-70s %4d %6d %6d %6d %7d %7d %6d\n' "$name" "$1" "$2" "$3" "$blocks" "$4" "$5" "$6"
    [ "$2" = 0 ] || echo "$name: $2 bytes of spills"
    [ "$1" -le 255 ] || echo "$name: $1 registers"
    case $name in *mma*) [ "$5" -gt 0 ] || echo "$name: no tensor instructions" ;; esac
done < "$work/rows"
[ ! -s "$work/other" ] || sed 's/$/ bytes of spills/' "$work/other" | c++filt -n -i
