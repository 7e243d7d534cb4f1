#!/usr/bin/env bash
# Run every fuzz target of the module for the time given, one after another.
set -euo pipefail
time=${1:-5s}
count=0
for pkg in $(go list ./...); do
  for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
    echo "fuzz $pkg $target for $time"
    go test -run '^$' -fuzz "^${target}\$" -fuzztime "$time" "$pkg"
    count=$((count + 1))
  done
done
if [ "$count" -eq 0 ]; then
  echo 'no fuzz target was found' >&2
  exit 1
fi
echo "$count fuzz targets"
