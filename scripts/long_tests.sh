#!/bin/sh
# The simulation and the tests with real processes, side by side: the one needs cores but no timing,
# the others timing but few cores, so the simulation takes what they leave.
set -u
log=$(mktemp)
nice -n 19 make --no-print-directory sim >"$log" 2>&1 &
sim=$!
trap 'kill $sim 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 130' INT TERM
make --no-print-directory integration
status=$?
echo "--- make sim, which ran beside it:"
if ! wait $sim; then status=1; fi
cat "$log"
exit $status
