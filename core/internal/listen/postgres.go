package listen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// The codes behind the length of a PostgreSQL client's first message (PostgreSQL's
// documentation, "Message Formats"): before a TLS handshake it asks for one, unless it is set
// to begin with it.
const (
	postgresSSLRequest    = 80877103
	postgresGSSENCRequest = 80877104
	postgresStartupMajor  = 3 // StartupMessage: the version of the protocol
)

// beginsPostgres says whether a client's first bytes are one of these messages.
func beginsPostgres(first []byte) bool {
	if len(first) < 8 {
		return false
	}
	length, code := binary.BigEndian.Uint32(first), binary.BigEndian.Uint32(first[4:])
	switch code {
	case postgresSSLRequest, postgresGSSENCRequest:
		return length == 8
	}
	// Kafka's length and version can look the same; clients name the user first.
	return code>>16 == postgresStartupMajor && bytes.HasPrefix(first[8:], []byte("user\x00"))
}

// postgresWithoutTLS is the answer to such a client where it has to begin with TLS: an
// ErrorResponse. No 'N' to its request, which would have it go on in the clear.
func postgresWithoutTLS(by tlsFirst) *Failure {
	return &Failure{
		Err:    &mistake{fmt.Sprintf("the client begins with PostgreSQL's own protocol, and not with TLS, and %s", by.why), by.postgres},
		Answer: postgresError("this port speaks TLS from the first byte", "Set sslnegotiation=direct (libpq 17 or later), or connect by way of a TLS client such as stunnel, with sslmode=disable."),
	}
}

// postgresError is a fatal protocol_violation.
func postgresError(message, hint string) []byte {
	fields := []byte("SFATAL\x00VFATAL\x00C08P01\x00M" + message + "\x00H" + hint + "\x00\x00")
	return slices.Concat([]byte{'E'}, binary.BigEndian.AppendUint32(nil, uint32(4+len(fields))), fields)
}
