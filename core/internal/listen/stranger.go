package listen

import (
	"fmt"
	"net/http"

	"github.com/tunneld/tunneld/internal/socks5"
)

// The first bytes by which a client of another protocol is known.
const (
	firstSOCKS4 = 0x04
	firstTLS    = 0x16 // a handshake record (RFC 8446, section 5.1)
)

// tlsAlert is a fatal unexpected_message, unencrypted, as the first record of a
// server (RFC 8446, section 6).
var tlsAlert = []byte{0x15, 3, 1, 0, 2, 2, 10}

// stranger is the answer to a client that speaks another protocol than the
// listener's, told by its first byte: in that protocol, so that its user reads
// more than that a connection was closed.
func stranger(kind string, first byte) *failure {
	fail := func(what string, answer []byte) *failure {
		return &failure{
			err:    fmt.Errorf("the client speaks %s on a listener of kind %s", what, kind),
			answer: answer,
		}
	}
	switch {
	case first == firstSOCKS4:
		// Request rejected, as SOCKS4's own document has it.
		return fail("SOCKS4", []byte{0, 0x5b, 0, 0, 0, 0, 0, 0})
	case first == firstTLS:
		return fail("TLS", tlsAlert)
	case first == socks5.Version:
		return fail("SOCKS5", socks5.AppendMethod(nil, socks5.MethodUnacceptable))
	case kind == KindSOCKS5 && first >= 'A' && first <= 'Z':
		return fail("HTTP", httpAnswer(http.StatusBadRequest, "", "this is a SOCKS5 proxy, not one for HTTP", false))
	case kind == KindSOCKS5:
		return fail(fmt.Sprintf("an unknown protocol (its first byte is 0x%02x)", first),
			socks5.AppendMethod(nil, socks5.MethodUnacceptable))
	default:
		return fail(fmt.Sprintf("an unknown protocol (its first byte is 0x%02x)", first),
			httpAnswer(http.StatusBadRequest, requestError, "this is not an HTTP request", false))
	}
}
