#!/usr/bin/env bash
# Run every fuzz target of the module, one after another, for as long as given:
# a number of inputs ("20000x") or a time ("1m"). Use the number in checks: when
# the time is up, "go test" may report the end of its own deadline as a failure.
set -euo pipefail
length=${1:-20000x}
count=0
for pkg in $(go list ./...); do
  for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
    echo "fuzz $pkg $target for $length"
    go test -run '^$' -fuzz "^${target}\$" -fuzztime "$length" "$pkg"
    count=$((count + 1))
  done
done
if [ "$count" -eq 0 ]; then
  echo 'no fuzz target was found' >&2
  exit 1
fi
echo "$count fuzz targets"
