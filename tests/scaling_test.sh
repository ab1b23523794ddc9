#!/bin/sh
# scaling_test.sh: a few of the axes of scaling.sh that `make test` holds: seconds, not minutes. All of them: make test-all.
# valgrind cannot run a program with sanitizers in it: there the axes are left to the plain build.
if nm "$(dirname "$0")/../hone" | grep -qE '__(asan|tsan|ubsan)_'; then echo "left out: hone is sanitized"; exit 0; fi
exec "$(dirname "$0")/scaling.sh" turns_plain yaml_list template_loop
