#!/bin/sh
# The bounds of the CUDA kernels' registers, spills and instructions; nothing to check where nvcc is missing.
set -eu
said=$(tests/cuda_report.sh "${HONE_BUILD:?}" check)
[ -z "$said" ] || { echo "$said"; exit 1; }
