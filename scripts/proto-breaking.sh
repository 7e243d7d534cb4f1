#!/usr/bin/env bash
# Fails where proto/ breaks what has been released: proto/released/v1.binpb is the
# contract of the last release. It first makes sure that it would notice.
# Usage: proto-breaking.sh BUF
set -euo pipefail
cd "$(dirname "$0")/.."
buf=$1
released=proto/released/v1.binpb

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r buf.yaml proto "$copy"
# A removed field, and a field with another type.
for change in 's/^  string name = 1;$//' 's/^  string name = 1;$/  bytes name = 1;/'; do
  sed -i.bak "$change" "$copy/proto/tunneld/plugin/v1/plugin.proto"
  if cmp -s "$copy/proto/tunneld/plugin/v1/plugin.proto" proto/tunneld/plugin/v1/plugin.proto; then
    echo "the test of this script changes nothing: fix $0" >&2
    exit 1
  fi
  if "$buf" breaking "$copy" --against "$released" >/dev/null 2>&1; then
    echo "a breaking change goes unnoticed ($change): fix $0 or buf.yaml" >&2
    exit 1
  fi
  cp proto/tunneld/plugin/v1/plugin.proto "$copy/proto/tunneld/plugin/v1/plugin.proto"
done

"$buf" breaking . --against "$released" || {
  echo 'this breaks plugins that are in use: what is released does not change, see docs/plugin-protocol.md' >&2
  exit 1
}
