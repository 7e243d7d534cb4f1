package wsstream

import (
	"crypto/tls"
	"net"

	"github.com/tunneld/tunneld/internal/tlsconf"
)

// NewTLS wraps conn, without a handshake yet. config is not changed.
func NewTLS(conn net.Conn, config *tls.Config) *tlsconf.Conn {
	// The default starts with records of one packet, for pages that a browser
	// renders while they load; a frame is worth nothing until it is whole.
	config = config.Clone()
	config.DynamicRecordSizingDisabled = true
	return tlsconf.ClientConn(conn, config, tlsconf.Ends{})
}
