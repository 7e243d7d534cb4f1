package outbound

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/tunneld/tunneld/internal/hostname"
)

// Environment is the Via that the environment's variables make: HTTPS_PROXY, and
// NO_PROXY for what goes without (or https_proxy and no_proxy).
const Environment = "environment"

// Via is how connections leave: as they are, or through a proxy. The zero value is
// no proxy. It holds a password, and no form of printing shows any of it.
type Via struct {
	text    string // as a user wrote it
	proxy   *Proxy
	noProxy string // what goes without the proxy, as NO_PROXY has it; "": nothing
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
	if err != nil {
		return Via{}, err
	}
	return Via{text: text, proxy: p}, nil
}

func viaEnvironment() (Via, error) {
	name := "HTTPS_PROXY"
	if os.Getenv(name) == "" {
		name = "https_proxy"
	}
	text := strings.TrimSpace(os.Getenv(name))
	if text == "" {
		return Via{text: Environment}, nil
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text // as curl and Go take it
	}
	p, err := parseProxy(text)
	if err != nil {
		return Via{}, fmt.Errorf("the variable %s: %w", name, err)
	}
	// Some places go without the proxy in any case, and "," is none of them.
	return Via{text: Environment, proxy: p, noProxy: "," + httpproxy.FromEnvironment().NoProxy}, nil
}

func parseProxy(text string) (*Proxy, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it cannot be read as a URL")
	}
	host, err := hostname.ASCII(u.Hostname())
	if err != nil {
		return nil, errors.New("its host is no name that can be looked up")
	}
	p := &Proxy{scheme: u.Scheme, host: host, port: u.Port(), user: u.User}
	switch port, known := proxyPorts[u.Scheme]; {
	case !known:
		return nil, errors.New("its scheme is not http, https or socks5")
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
	name, password := p.credentials()
	if name == "" && password == "" {
		p.user = nil
	}
	if p.isSOCKS() {
		p.scheme = "socks5" // the proxy resolves names in any case
		switch {            // RFC 1929, section 2
		case len(name) > 255 || len(password) > 255:
			return nil, errors.New("a SOCKS5 proxy takes user and password of up to 255 bytes each")
		case name == "" && password != "":
			return nil, errors.New("a SOCKS5 proxy takes no password without a user")
		}
	}
	return p, nil
}

// Text is what the user wrote. It may hold a password.
func (v Via) Text() string { return v.text }

// IsZero says whether connections leave as they are.
func (v Via) IsZero() bool { return v.proxy == nil }

// proxyFor returns the proxy of connections to address, or nil.
func (v Via) proxyFor(address string) *Proxy {
	if v.proxy == nil || v.noProxy != "" && goesWithout(v.noProxy, hostname.AddressWithoutDot(address)) {
		return nil
	}
	return v.proxy
}

// goesWithout is the judgement of httpproxy on NO_PROXY alone: of a proxy that it
// cannot read it says nothing, and lets all go without.
func goesWithout(noProxy, address string) bool {
	config := httpproxy.Config{HTTPSProxy: "http://proxy", NoProxy: noProxy}
	chosen, err := config.ProxyFunc()(&url.URL{Scheme: "https", Host: address})
	return err == nil && chosen == nil
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

// ViaHelp says how via is written.
const ViaHelp = `Write it as "http://user:password@proxy:3128" with %40 for an @ in the password, https or socks5 for http, or "environment" for HTTPS_PROXY and NO_PROXY.`

// ParseBind reads the address that connections are made from; an empty text is any.
func ParseBind(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	ip, err := netip.ParseAddr(text)
	ip = ip.Unmap()
	switch {
	case err != nil:
		return netip.Addr{}, errors.New("it is not an IP address")
	case ip.IsUnspecified(), ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, errors.New("connections cannot be made from it")
	}
	return ip, nil
}

// BindHelp says how bind is written.
const BindHelp = `Write an address of this machine, as in "192.0.2.10" or "2001:db8::10"; without one the system chooses.`
