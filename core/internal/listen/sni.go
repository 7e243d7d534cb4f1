package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/clienthello"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// sniKind begins with a handshake record (RFC 8446, section 5.1). On listeners of other kinds
// its clients are answered with a fatal unexpected_message.
var sniKind = Kind{
	Name:        KindSNI,
	Summary:     "TLS with their target, which is what they name in the ClientHello (SNI: RFC 6066, section 3); nothing is decrypted",
	NamesTarget: true,
	ThroughTLS:  true,
	Attributes: []*pluginv1.Attribute{
		{Name: "port", Type: &pluginv1.Type{Kind: pluginv1.Kind_KIND_INT, MinimumJson: "1", MaximumJson: "65535"}},
	},
	Speaks:  "TLS",
	Begins:  func(first byte) bool { return first == 0x16 },
	Astray:  "the listener speaks no TLS: where the client names its proxy, write http:// or socks5h://, not https://, or give the listener a tls block",
	Foreign: func(string) []byte { return tlsAlert(alertUnexpectedMessage) },
	New: func(s Settings) Protocol {
		port, _ := s.Values["port"].(int64) // absent: 0
		return sniProtocol{port: uint16(port)}
	},
}

// The alerts to clients (RFC 8446, section 6.2).
const (
	alertUnexpectedMessage tls.AlertError = 10
	alertAccessDenied      tls.AlertError = 49
	alertInternalError     tls.AlertError = 80
	alertMissingExtension  tls.AlertError = 109
	alertUnrecognizedName  tls.AlertError = 112
)

// tlsAlert is a fatal alert as the first record of a server, unencrypted (RFC 8446, section 6).
func tlsAlert(alert tls.AlertError) []byte { return []byte{0x15, 3, 1, 0, 2, 2, byte(alert)} }

// sniProtocol reads the name that a client asks its server for, and leaves the rest to the
// two. Until the target has answered, a client can be told by an alert why it gets no tunnel.
type sniProtocol struct {
	wordless
	port uint16 // of the targets; 0: the one that the client has connected to
}

func (sniProtocol) Asks() bool { return true }

func (p sniProtocol) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	return hear(ctx, p, c, func(s io.ReadWriter) (Request, *Failure) {
		port, err := p.portOf(s.(net.Conn)) // Talk has made it one
		if err != nil {
			return Request{}, &Failure{Err: err, Answer: tlsAlert(alertInternalError)}
		}
		return readSNI(s, port, p, c.hold)
	})
}

// portOf is the port of a client's target.
func (p sniProtocol) portOf(c net.Conn) (uint16, error) {
	if p.port != 0 {
		return p.port, nil
	}
	at, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return 0, &mistake{fmt.Sprintf("the client has connected to %s, which has no port for the target to have, too", c.LocalAddr()), "set port of the listener"}
	}
	return at.AddrPort().Port(), nil
}

func (sniProtocol) Refuse(ctx context.Context, c *Conn, err *tunnel.DialError) {
	c.CloseWith(ctx, tlsAlert(answerTo(err.Reason).Alert))
}

// readSNI reads a ClientHello, all of which goes ahead to the target.
func readSNI(c io.Reader, port uint16, r Responder, hold func(int) error) (Request, *Failure) {
	hello, err := clienthello.Read(c, newGrowth(hold))
	var info *clienthello.Info
	if err == nil {
		info, err = hello.Info()
	}
	if err != nil {
		return Request{}, noHello(hello, err, bySNI)
	}
	if info.ServerName == "" {
		return Request{}, &Failure{
			Err: &tlsError{err: errors.New("the client names no server (SNI), so that its target is not known"), hint: asksByName},
			// RFC 8446, section 9.2.
			Answer: tlsAlert(alertMissingExtension),
		}
	}
	asked := ask(info.ServerName, port, hello.Raw, r)
	if _, noIP := netip.ParseAddr(asked.Target.Host); asked.Denied == nil && noIP != nil {
		return asked, nil
	}
	why := "an IP address is no name of a server (RFC 6066, section 3)"
	if asked.Denied != nil {
		why = asked.Denied.Message
	}
	return Request{}, &Failure{
		Err:    &tlsError{name: info.ServerName, err: errors.New(why), hint: asksByName},
		Answer: tlsAlert(alertUnrecognizedName),
	}
}

var bySNI = tlsFirst{
	why:      "on an sni listener it is TLS that names the target",
	hint:     "set the client to TLS, such as https:// in place of http://; a client that is set to a proxy needs a listener of kind socks5, http or mixed",
	postgres: "set sslnegotiation=direct in the client (libpq 17 or later); put stunnel or the like in front of an older client, with sslmode=disable; or use a tcp listener",
}

const asksByName = "have the client connect to the target by its name, not by an IP address, and send that name in TLS, as openssl s_client does with -servername; or use a tcp listener, whose target is fixed"
