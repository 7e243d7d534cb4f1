#!/usr/bin/env bash
# Run every fuzz target of the module, one after another, for as long as given:
# a number of inputs ("20000x") or a time ("1m"). Use the number in checks: when
# the time is up, "go test" may report the end of its own deadline as a failure.
# A package's test program is built once, since linking it takes longer than many
# targets run.
set -euo pipefail
length=${1:-20000x}
count=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=$(go env GOCACHE)/fuzz/$(go list -m) # as "go test" has it
for dir in $(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do
  go test -c -fuzz . -o "$work/fuzz.test" "./$dir"
  for target in $(cd "$dir" && "$work/fuzz.test" -test.list '^Fuzz'); do
    echo "fuzz $dir $target for $length"
    (cd "$dir" && "$work/fuzz.test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$length" -test.fuzzcachedir "$corpus/$dir")
    count=$((count + 1))
  done
done
if [ "$count" -eq 0 ]; then
  echo 'no fuzz target was found' >&2
  exit 1
fi
echo "$count fuzz targets"
