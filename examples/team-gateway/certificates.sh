#!/bin/sh
# Makes, in the folder "certificates", what the page needs to try the example: the team's
# authority, and certificates for the gateway, two web servers and two people. A team has
# an authority already, and people keep their keys to themselves.
set -eu
mkdir -p certificates
cd certificates

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
  -subj "/CN=Team authority" -keyout ca.key -out ca.pem 2>/dev/null

# issue NAME USAGE SUBJECT-ALTERNATIVE-NAME
issue() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  printf 'subjectAltName = %s\nextendedKeyUsage = %s\n' "$3" "$2" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
    -extfile "$1.ext" -out "$1.pem" 2>/dev/null
  rm "$1.csr" "$1.ext"
}
issue gateway serverAuth DNS:gateway.team.example
issue wiki serverAuth DNS:wiki.team.example
issue builds serverAuth DNS:builds.team.example
issue alice clientAuth URI:spiffe://team.example/people/alice
issue guest clientAuth URI:spiffe://team.example/guests/guest
