package azrelay

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
	"net/url"
	"strconv"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
)

// viaPorts are the schemes of a proxy and their default ports.
var viaPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080"}

// maxViaResponse bounds the head of a proxy's response, in bytes.
const maxViaResponse = 64 << 10

// viaError is a proxy's refusal.
type viaError struct {
	status int // of an HTTP proxy, else 0
	code   socks5.Code
	auth   bool // it is about user and password
	text   string
}

func (e *viaError) Error() string { return e.text }

func viaAddress(via *url.URL) string {
	return net.JoinHostPort(via.Hostname(), orDefault(via.Port(), viaPorts[via.Scheme]))
}

// tunnelVia asks the proxy behind socket for a connection to the service, whose
// name the proxy resolves. It ends when ctx does.
func (c *Config) tunnelVia(ctx context.Context, s *settings, socket net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	conn, err := c.askVia(ctx, s, socket)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return conn, err
}

func (c *Config) askVia(ctx context.Context, s *settings, socket net.Conn) (net.Conn, error) {
	switch s.via.Scheme {
	case "socks5":
		return socket, askSOCKS(socket, s)
	case "https":
		// The block's authorities hold for the proxy, too; its name and the
		// client certificate are the service's.
		proxy := c.TLS
		proxy.ServerName, proxy.CertFile, proxy.KeyFile = "", "", ""
		config, err := proxy.Config(s.via.Hostname())
		if err != nil {
			return nil, fmt.Errorf("configure tls: %w", err)
		}
		secured := tls.Client(socket, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("tls handshake with the proxy: %w", err)
		}
		return secured, askHTTP(secured, s)
	}
	return socket, askHTTP(socket, s)
}

// askHTTP sends CONNECT (RFC 9110, 9.3.6).
func askHTTP(conn net.Conn, s *settings) error {
	head := "CONNECT " + s.address + " HTTP/1.1\r\nHost: " + s.address + "\r\n"
	if u := s.via.User; u != nil {
		head += "Proxy-Authorization: Basic " + basicAuth(u) + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return fmt.Errorf("write connect: %w", err)
	}
	br := bufio.NewReaderSize(io.LimitReader(conn, maxViaResponse), 4<<10)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Errorf("read the proxy's response: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return &viaError{status: resp.StatusCode, auth: resp.StatusCode == http.StatusProxyAuthRequired,
			text: "the proxy answered " + resp.Status}
	}
	// The service speaks only when spoken to.
	if br.Buffered() > 0 {
		return errors.New("the proxy sent data before the tunnel was in use")
	}
	return nil
}

// basicAuth is RFC 7617's form of user and password.
func basicAuth(u *url.Userinfo) string {
	password, _ := u.Password()
	return base64.StdEncoding.EncodeToString([]byte(u.Username() + ":" + password))
}

// viaSecrets is what a proxy is sent in confidence; u may be nil.
func viaSecrets(u *url.Userinfo) []string {
	if u == nil {
		return nil
	}
	password, _ := u.Password()
	return []string{password, basicAuth(u)}
}

// askSOCKS asks a SOCKS5 proxy (RFC 1928, RFC 1929).
func askSOCKS(conn net.Conn, s *settings) error {
	methods := []socks5.Method{socks5.MethodNone}
	if s.via.User != nil {
		methods = append(methods, socks5.MethodUserPass)
	}
	b, err := socks5.AppendGreeting(nil, methods...)
	if err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("write greeting: %w", err)
	}
	method, err := socks5.ReadMethod(conn)
	if err != nil {
		return err
	}
	switch {
	case method == socks5.MethodNone:
	case method == socks5.MethodUserPass && s.via.User != nil:
		if err := authSOCKS(conn, s.via.User); err != nil {
			return err
		}
	default:
		return &viaError{auth: true, text: "the SOCKS5 proxy takes none of the offered methods"}
	}
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	b, err = socks5.AppendRequest(nil, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: host, Port: uint16(n)}})
	if err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	reply, err := socks5.ReadReply(conn)
	if err != nil {
		return err
	}
	if reply.Code != socks5.Succeeded {
		return &viaError{code: reply.Code, text: "the SOCKS5 proxy answered: " + reply.Code.Text()}
	}
	return nil
}

func authSOCKS(conn net.Conn, user *url.Userinfo) error {
	password, _ := user.Password()
	b, err := socks5.AppendUserPass(nil, socks5.UserPass{Username: user.Username(), Password: password})
	if err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("write user and password: %w", err)
	}
	status, err := socks5.ReadUserPassStatus(conn)
	if err != nil {
		return err
	}
	if status != 0 {
		return &viaError{auth: true, text: "the SOCKS5 proxy refused user and password"}
	}
	return nil
}
