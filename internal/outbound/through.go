package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/plaintext"
	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/internal/tlsconf"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const (
	// maxHead bounds what a proxy may answer with, in bytes.
	maxHead = 64 << 10
	// maxInformational is how many 1xx answers may precede the one that counts.
	maxInformational = 8
	// maxExcerpt bounds what an error repeats of a proxy's text, in bytes.
	maxExcerpt = 200
)

// dialThrough connects to the proxy and asks it for address, whose name it
// resolves itself.
func (d *Dialer) dialThrough(ctx context.Context, p *Proxy, address string, enter func(pluginv1.Stage)) (net.Conn, error) {
	conn, err := d.connectProxy(ctx, p, enter)
	if err != nil {
		return nil, err
	}
	err = Bound(ctx, conn, func() error {
		if p.isSOCKS() {
			return p.askSOCKS(conn, address)
		}
		return p.askHTTP(conn, address)
	})
	if err != nil {
		_ = conn.Close()
		return nil, p.failed("through", err)
	}
	return conn, nil
}

// connectProxy returns a connection on which the proxy can be spoken to.
func (d *Dialer) connectProxy(ctx context.Context, p *Proxy, enter func(pluginv1.Stage)) (net.Conn, error) {
	conn, err := d.connect(ctx, p.address(), nil, enter)
	if err != nil {
		return nil, p.failed("connect to", err)
	}
	if p.scheme != "https" {
		return conn, nil
	}
	secured, err := d.secure(ctx, p, conn)
	if err != nil {
		_ = conn.Close()
		return nil, p.failed("TLS handshake with", err)
	}
	return secured, nil
}

func (d *Dialer) secure(ctx context.Context, p *Proxy, conn net.Conn) (net.Conn, error) {
	config := &tls.Config{ServerName: p.host, MinVersion: tls.VersionTLS12}
	if d.TLS != nil {
		var err error
		if config, err = d.TLS(p.host); err != nil {
			return nil, err
		}
	}
	c := tls.Client(tlsconf.Strict(conn), config)
	return c, c.HandshakeContext(ctx)
}

// noCertificate is for a proxy that requires one: the client's of the tls block is for the
// far end.
const noCertificate = "if the proxy requires a client certificate, use another one: proxies are sent none, but user and password of via"

// failed says of an error where it happened. What is late is the proxy's silence:
// nothing is known of the way behind it.
func (p *Proxy) failed(doing string, err error) error {
	where := fmt.Sprintf("%s the proxy at %s: ", doing, p.address())
	var e *neterr.Explained
	switch {
	case errors.As(err, &e):
		return &neterr.Explained{Meaning: e.Meaning, Message: where + e.Message, RetryAfter: e.RetryAfter, Err: err}
	case neterr.RefusesCertificate(err), neterr.RefusesHandshake(err):
		m := neterr.Classify(err)
		m.Hint = noCertificate
		if neterr.RefusesHandshake(err) {
			m.Hint += "; or it shares no cipher suite with this client: enable ECDHE there"
		}
		return &neterr.Explained{Meaning: m, Message: where + err.Error(), Err: err}
	case doing == "through" && neterr.Classify(err).Reason == pluginv1.Reason_REASON_TIMEOUT:
		return &neterr.Explained{
			Meaning: neterr.Meaning{Reason: pluginv1.Reason_REASON_TIMEOUT, Retryable: true, Hint: "the proxy accepted the connection but did not answer: check that via is a proxy, and that it reaches what is behind it"},
			Message: where + "no answer in time",
			Err:     err,
		}
	}
	return fmt.Errorf("%s%w", where, err)
}

// askHTTP sends CONNECT (RFC 9110, section 9.3.6).
func (p *Proxy) askHTTP(conn net.Conn, address string) error {
	if strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return refused(pluginv1.Reason_REASON_UNREACHABLE, "the target's name cannot be sent in a request", "use a name without spaces and control characters")
	}
	head := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if p.user != nil {
		head += "Proxy-Authorization: Basic " + p.basicAuth() + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return err
	}
	// A byte at a time: what follows the head is the caller's, and stays in the
	// socket.
	limit := &io.LimitedReader{R: byByte{conn}, N: maxHead}
	r := bufio.NewReaderSize(limit, 16)
	for range maxInformational {
		answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
		switch {
		case err != nil && limit.N == 0:
			return refused(pluginv1.Reason_REASON_PROTOCOL, fmt.Sprintf("its answer has more than %d bytes", maxHead), noHTTP)
		case err != nil && malformed(err):
			return refused(pluginv1.Reason_REASON_PROTOCOL, "its answer is not HTTP: "+plaintext.Excerpt(err.Error(), maxExcerpt, p.secrets()...), noHTTP)
		case err != nil:
			return err
		case answer.StatusCode/100 == 2:
			return nil
		case answer.StatusCode/100 != 1:
			return p.refusal(answer)
		}
	}
	return refused(pluginv1.Reason_REASON_PROTOCOL, "it keeps sending informational answers", noHTTP)
}

const noHTTP = "the server there is not an HTTP proxy: check via"

// byByte reads one byte at a time.
type byByte struct{ io.Reader }

func (r byByte) Read(b []byte) (int, error) { return r.Reader.Read(b[:min(len(b), 1)]) }

// malformed says whether the error of reading an answer is the peer's own: those
// of the connection are known by type.
func malformed(err error) bool {
	var network net.Error
	return !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &network)
}

func refused(reason pluginv1.Reason, message, hint string) *neterr.Explained {
	return &neterr.Explained{Meaning: neterr.Meaning{Reason: reason, Hint: hint}, Message: message}
}

// refusal is the meaning of an answer to CONNECT other than success.
func (p *Proxy) refusal(answer *http.Response) error {
	m := HTTPStatus(answer.StatusCode)
	switch status := answer.StatusCode; {
	case status == http.StatusProxyAuthRequired, status == http.StatusUnauthorized: // tinyproxy 1.11 says 401 of wrong ones
		m.Hint = "check user and password in via"
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable:
		m.Reason, m.Hint = pluginv1.Reason_REASON_UNREACHABLE, "the proxy cannot reach the address: check it, and the proxy's own network"
	case status == http.StatusGatewayTimeout:
		m.Hint = "the address does not answer the proxy: check it, and the proxy's own network"
	case status/100 == 4 && !m.Retryable:
		m.Reason, m.Hint = pluginv1.Reason_REASON_DENIED, "check that the proxy allows connections to this host and port"
	default:
		m.Hint = "see the proxy's log"
	}
	return &neterr.Explained{
		Meaning:    m,
		Message:    "it answered " + plaintext.Excerpt(answer.Status, maxExcerpt, p.secrets()...),
		RetryAfter: RetryAfter(answer.Header, time.Now()),
	}
}

// askSOCKS asks a SOCKS5 proxy (RFC 1928, RFC 1929).
func (p *Proxy) askSOCKS(conn net.Conn, address string) error {
	err := p.talkSOCKS(conn, address)
	if errors.Is(err, socks5.ErrMalformed) {
		return refused(pluginv1.Reason_REASON_PROTOCOL, err.Error(), "the server there is not a SOCKS5 proxy: check via")
	}
	return err
}

func (p *Proxy) talkSOCKS(conn net.Conn, address string) error {
	host, port, err := splitAddress(address)
	if err != nil {
		return err
	}
	request, err := socks5.AppendRequest(nil, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: host, Port: port}})
	if err != nil {
		return refused(pluginv1.Reason_REASON_UNREACHABLE, err.Error(), "SOCKS carries host names of 1 to 255 bytes and IP addresses without a zone")
	}
	if err := p.greet(conn); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	reply, err := socks5.ReadReply(conn)
	if err == nil && reply.Code != socks5.Succeeded {
		return &neterr.Explained{Meaning: socksMeaning(reply.Code), Message: "it answered: " + reply.Code.Text()}
	}
	return err
}

// greet agrees on a method, and logs in where that is the one.
func (p *Proxy) greet(conn net.Conn) error {
	methods := []socks5.Method{socks5.MethodNone}
	if p.user != nil {
		methods = append(methods, socks5.MethodUserPass)
	}
	b, err := socks5.AppendGreeting(nil, methods...)
	if err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	method, err := socks5.ReadMethod(conn)
	switch {
	case err != nil:
		return err
	case method == socks5.MethodNone:
		return nil
	case method != socks5.MethodUserPass || p.user == nil:
		return refused(pluginv1.Reason_REASON_UNAUTHENTICATED, "it accepts none of the offered authentication methods", "check user and password in via")
	}
	name, password := p.credentials()
	if b, err = socks5.AppendUserPass(nil, socks5.UserPass{Username: name, Password: password}); err != nil {
		return refused(pluginv1.Reason_REASON_UNAUTHENTICATED, err.Error(), "check user and password in via")
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	status, err := socks5.ReadUserPassStatus(conn)
	if err == nil && status != 0 {
		return refused(pluginv1.Reason_REASON_UNAUTHENTICATED, "it refused user and password", "check user and password in via")
	}
	return err
}

// socksMeaning is what a reply of a proxy means (RFC 1928, section 6).
func socksMeaning(code socks5.Code) neterr.Meaning {
	switch code {
	case socks5.GeneralFailure, socks5.HostUnreachable, socks5.NetworkUnreachable:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_UNREACHABLE, Retryable: true, Hint: "the proxy cannot reach the address: check it, and the proxy's own network"}
	case socks5.TTLExpired:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_TIMEOUT, Retryable: true, Hint: "the address does not answer the proxy: check it, and the proxy's own network"}
	case socks5.ConnectionRefused:
		return neterr.Meaning{Reason: pluginv1.Reason_REASON_REFUSED, Retryable: true, Hint: "nothing listens there, as the proxy sees it: check host and port"}
	}
	return neterr.Meaning{Reason: pluginv1.Reason_REASON_DENIED, Hint: "check that the proxy allows connections to this host and port"}
}

// basicAuth is RFC 7617's form of user and password.
func (p *Proxy) basicAuth() string {
	name, password := p.credentials()
	return base64.StdEncoding.EncodeToString([]byte(name + ":" + password))
}

// secrets are what is sent to the proxy in confidence.
func (p *Proxy) secrets() []string {
	if p.user == nil {
		return nil
	}
	_, password := p.credentials()
	return []string{password, p.basicAuth()}
}

// Secrets are what is sent to the proxy in confidence, and what it may repeat.
func (v Via) Secrets() []string {
	if v.proxy == nil {
		return nil
	}
	return v.proxy.secrets()
}
