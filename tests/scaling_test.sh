#!/bin/sh
# scaling_test.sh: a few of the axes of scaling.sh that `make test` holds: seconds, not minutes. All of them: make test-all.
exec "$(dirname "$0")/scaling.sh" turns_plain yaml_list template_loop
