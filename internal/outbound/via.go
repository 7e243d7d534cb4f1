package outbound

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// Environment is the Via that the environment's variables make: HTTPS_PROXY, and
// NO_PROXY for what goes without (or https_proxy and no_proxy).
const Environment = "environment"

// Via is how connections leave: as they are, or through a proxy. The zero value is
// no proxy. It holds a password, and no form of printing shows any of it.
type Via struct {
	proxy   *Proxy
	without func(address string) bool // what goes without the proxy; nil: nothing
}

// Proxy is the proxy of one connection. No form of printing shows it.
type Proxy struct {
	scheme string
	host   string
	port   string
	user   *url.Userinfo // nil: no credentials
}

// The schemes of a proxy and their default ports.
var proxyPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// ParseVia reads what a user wrote: nothing, a proxy's URL, or Environment. Its
// errors repeat no part of it.
func ParseVia(text string) (Via, error) {
	switch text = strings.TrimSpace(text); text {
	case "":
		return Via{}, nil
	case Environment:
		return viaEnvironment()
	}
	p, err := parseProxy(text)
	return Via{proxy: p}, err
}

func viaEnvironment() (Via, error) {
	name := "HTTPS_PROXY"
	if os.Getenv(name) == "" {
		name = "https_proxy"
	}
	text := strings.TrimSpace(os.Getenv(name))
	if text == "" {
		return Via{}, nil
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text // as curl and Go take it
	}
	p, err := parseProxy(text)
	if err != nil {
		return Via{}, fmt.Errorf("the variable %s: %w", name, err)
	}
	// It is asked for its judgement on NO_PROXY alone: of a proxy that it cannot
	// read it says nothing, and goes without.
	config := httpproxy.FromEnvironment()
	config.HTTPSProxy = "http://proxy"
	choose := config.ProxyFunc()
	return Via{proxy: p, without: func(address string) bool {
		chosen, err := choose(&url.URL{Scheme: "https", Host: address})
		return err == nil && chosen == nil
	}}, nil
}

func parseProxy(text string) (*Proxy, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it cannot be read as a URL")
	}
	p := &Proxy{scheme: u.Scheme, host: u.Hostname(), port: u.Port(), user: u.User}
	switch port, known := proxyPorts[u.Scheme]; {
	case !known:
		return nil, errors.New("its scheme is none of http, https and socks5")
	case p.host == "":
		return nil, errors.New("it names no host")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("something follows the port")
	case p.port == "":
		p.port = port
	}
	if n, err := strconv.ParseUint(p.port, 10, 16); err != nil || n == 0 {
		return nil, errors.New("the port is not 1 to 65535")
	}
	if p.isSOCKS() {
		p.scheme = "socks5" // the proxy resolves names in any case
		if name, password := p.credentials(); len(name) > 255 || len(password) > 255 {
			return nil, errors.New("a SOCKS5 proxy takes user and password of up to 255 bytes each")
		}
	}
	return p, nil
}

// IsZero says whether connections leave as they are.
func (v Via) IsZero() bool { return v.proxy == nil }

// proxyFor returns the proxy of connections to address, or nil.
func (v Via) proxyFor(address string) *Proxy {
	if v.proxy == nil || v.without != nil && v.without(address) {
		return nil
	}
	return v.proxy
}

// Format prints nothing of it.
func (Via) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue logs nothing of it.
func (Via) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format prints nothing of it.
func (*Proxy) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue logs nothing of it.
func (*Proxy) LogValue() slog.Value { return slog.StringValue(redacted) }

const redacted = "[redacted]"

// address is the proxy's own, which is no secret.
func (p *Proxy) address() string { return net.JoinHostPort(p.host, p.port) }

func (p *Proxy) isSOCKS() bool { return strings.HasPrefix(p.scheme, "socks5") }

func (p *Proxy) credentials() (name, password string) {
	if p.user == nil {
		return "", ""
	}
	password, _ = p.user.Password()
	return p.user.Username(), password
}
