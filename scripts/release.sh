#!/usr/bin/env bash
# Builds a release from its tag into dist/: an archive for each system, and SHA256SUMS.
# docs/releasing.md has the steps before; this script fails if one was forgotten.
# Usage: release.sh VERSION
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "release: $*" >&2; exit 1; }

version=${1-}
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "the version is three numbers, as in 1.2.3: make release VERSION=1.2.3"
grep -qxF "const Next = \"$version\"" internal/version/version.go || fail "internal/version/version.go has another Next than $version"
[ -z "$(git status --porcelain)" ] || fail 'there are files that are not committed: git status'
tag=v$version
[ "$(git rev-parse -q --verify "$tag^{commit}" || true)" = "$(git rev-parse HEAD)" ] || fail "HEAD is not $tag: git tag -a $tag, or git checkout $tag"
section=$(awk -v head="## $version " 'index($0, "## ") == 1 { inside = index($0, head) == 1; next } inside && NF' CHANGELOG.md)
[ -n "$section" ] || fail "CHANGELOG.md has nothing below a heading '## $version (YYYY-MM-DD)'"

targets=${RELEASE_TARGETS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}
export CGO_ENABLED=0 SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
rm -rf dist
mkdir dist
for target in $targets; do
  name=tunneld_${version}_${target%/*}_${target#*/}
  mkdir "dist/$name"
  GOOS=${target%/*} GOARCH=${target#*/} go build -trimpath \
    -ldflags "-s -w -X github.com/tunneld/tunneld/internal/version.release=$version" -o "dist/$name/tunneld" ./cmd/tunneld
  cp LICENSE README.md CHANGELOG.md SECURITY.md "dist/$name"
  # The same files make the same archive, whoever builds it, whenever.
  tar -C dist --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" | gzip -n9 >"dist/$name.tar.gz"
  rm -r "dist/${name:?}"
  echo "dist/$name.tar.gz"
done
(cd dist && sha256sum -- *.tar.gz >SHA256SUMS)
echo dist/SHA256SUMS
