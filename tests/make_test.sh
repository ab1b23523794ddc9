#!/bin/sh
# `make` uses all cores where nobody says how many; -j on the command line or in MAKEFLAGS decides otherwise, and several
# goals go one after another, for `make clean hone` must not build while it removes.
set -eu
cd "$(dirname "$0")/.."
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
cores=$(nproc)

jobs() { # of `make "$@"`, as its MAKEFLAGS say; nothing where it runs one after another
    make -pn "$@" CUDA= check 2> /dev/null | sed -n 's/^MAKEFLAGS = [a-zA-Z]* *\(-j[0-9]*\).*/\1/p' | head -n 1
}
expect() { # WHAT EXPECTED FOUND
    [ "$2" = "$3" ] || { echo "$1: make runs with '$3' instead of '$2'" >&2; exit 1; }
}
expect "make" "-j$cores" "$(jobs)"
expect "make -j1" "-j1" "$(jobs -j1)"
expect "make -j7" "-j7" "$(jobs -j7)"
expect "MAKEFLAGS=-j7" "-j7" "$(MAKEFLAGS=-j7 jobs)"
expect "make clean check" "" "$(jobs clean)"
