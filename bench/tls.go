package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/tunneld/tunneld/internal/emu"
)

// tlsFiles are the certificate that every row with TLS has, with an ECDSA key on P-256.
type tlsFiles struct {
	authority string // the load trusts it
	cert, key string
	both      string // certificate and key, as HAProxy reads them
}

// issueTLS makes the files in dir.
func issueTLS(dir string) (f tlsFiles, err error) {
	a, err := emu.NewAuthority()
	if err != nil {
		return f, err
	}
	server, err := a.Server()
	if err != nil {
		return f, err
	}
	cert, key, err := emu.PEM(server)
	if err != nil {
		return f, err
	}
	for _, file := range []struct {
		path *string
		name string
		text []byte
	}{
		{&f.authority, "authority.pem", a.PEM()},
		{&f.cert, "cert.pem", cert},
		{&f.key, "key.pem", key},
		{&f.both, "both.pem", append(cert, key...)},
	} {
		if *file.path, err = write(dir, file.name, string(file.text)); err != nil {
			return f, err
		}
	}
	return f, nil
}

// speaksTLS says whether a row's clients speak TLS with what is in between.
func speaksTLS(row string) bool { return strings.HasSuffix(row, "-tls") }

// haproxyTLS ends the TLS of its clients. The client's order of ciphers holds, as it does in
// tunneld: both encrypt by the same one.
func haproxyTLS(ctx context.Context, _ settings, far farEnds, dir string) (row, error) {
	r, err := startHAProxy(ctx, far, dir, " ssl prefer-client-ciphers crt "+far.tls.both)
	r.authority = far.tls.authority
	return r, err
}

// tunneldTLS does the same.
func tunneldTLS(ctx context.Context, s settings, far farEnds, dir string) (row, error) {
	r, err := ports()
	if err != nil {
		return r, err
	}
	r.authority = far.tls.authority
	text := "upstream \"direct\" \"far\" {}\n" + r.listeners(far.services(), fmt.Sprintf(" tls {\n  cert_file = %q\n  key_file = %q\n }\n", far.tls.cert, far.tls.key))
	return r.startTunneld(ctx, s, dir, text, "direct.far")
}

// clientTLS is how the load speaks TLS with a server whose certificate is by an authority of
// the file. It offers one way to agree on a key: HAProxy, with OpenSSL 3.0, knows none with ML-KEM, for
// which Go would prefer it, and the rows would not do the same.
func (f loadFlags) clientTLS(authority string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(f.address)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: host, RootCAs: x509.NewCertPool(), CurvePreferences: []tls.CurveID{tls.X25519}}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", authority)
	}
	if f.resume {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return c, nil
}

// secure speaks TLS on a connection.
func (f loadFlags) secure(c net.Conn) (net.Conn, error) {
	conn := tls.Client(c, f.tls)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	if f.resume && !conn.ConnectionState().DidResume {
		return nil, errors.New("the server has resumed no session")
	}
	return conn, nil
}

// takeTicket makes a tunnel, so that those that follow have a session to resume.
func (f loadFlags) takeTicket() error {
	if !f.resume {
		return nil
	}
	f.resume = false
	return oneTunnel(f) // the ticket comes with the byte
}

// socket is the TCP connection that a load's connection is, or that its TLS is on.
func socket(c net.Conn) *net.TCPConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*net.TCPConn)
}
