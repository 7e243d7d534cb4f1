package sdk

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/internal/outbound"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// Timeouts is the timeouts block that plugins share. As a plain struct field
// it has its defaults where the user wrote no block. "0s" is no limit: ConnectContext and
// HandshakeContext take it so, while context.WithTimeout would end at once. A plugin that
// wants a limit in any case gives the field the tag `min:"1ms"`.
type Timeouts struct {
	Connect   time.Duration `tunneld:"connect" default:"10s" dial_time:"step" doc:"how long the connection to the far end may take, a proxy's part included"`
	Handshake time.Duration `tunneld:"handshake" default:"10s" dial_time:"answer" doc:"how long the handshake on that connection may take"`
}

// ConnectContext returns ctx bounded by Connect. As with context.WithTimeout the caller
// calls the function in the end.
func (t Timeouts) ConnectContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return bounded(ctx, t.Connect)
}

// HandshakeContext returns ctx bounded by Handshake. As with context.WithTimeout the
// caller calls the function in the end.
func (t Timeouts) HandshakeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return bounded(ctx, t.Handshake)
}

func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// ValidateHostPort checks that text is "host:port", with a port from 1 to 65535; path is
// where it stands in the upstream's body. It returns at most one diagnostic, an error,
// which does not repeat the text: it may hold a password by mistake.
func ValidateHostPort(text string, path ...string) []Diagnostic {
	host, port, err := net.SplitHostPort(text)
	n, portErr := strconv.ParseUint(port, 10, 16)
	var address *net.AddrError
	problem := ""
	switch {
	case errors.As(err, &address):
		problem = address.Err
	case host == "":
		problem = "no host"
	case !hostname.IsName(host):
		problem = "the host is no name that can be looked up"
	case portErr != nil || n == 0:
		problem = "the port is not 1 to 65535"
	default:
		return nil
	}
	return []Diagnostic{{
		Summary: strings.Join(path, ".") + " is not host:port: " + problem,
		Detail:  `Write it as in "proxy.corp:3128" or "[fd00::1]:3128".`,
		Path:    path,
	}}
}

// ValidateText checks that a text has no control characters, such as the line break at
// the end of a file; path is where it stands in the upstream's body. It returns at most
// one diagnostic, an error. It is for texts from elsewhere: attributes are checked
// without it (see SchemaOf).
func ValidateText(text string, path ...string) []Diagnostic {
	summary, detail := schema.ControlProblem(text)
	if summary == "" {
		return nil
	}
	return []Diagnostic{{Summary: strings.Join(path, ".") + " " + summary, Detail: detail, Path: slices.Clone(path)}}
}

// IsLoopback says whether a host, an IP address without brackets or a name, is this machine
// itself: 127.0.0.0/8, ::1, localhost and names below it. A warning that something is sent
// without TLS has no reason there.
func IsLoopback(host string) bool { return outbound.IsLoopback(host) }

// ValidateSecret warns of a line break at a secret's end, which nearly always is that of
// the file; path is where it stands in the upstream's body. It returns at most one
// diagnostic, a warning.
func ValidateSecret(s Secret, path ...string) []Diagnostic {
	if !strings.HasSuffix(s.Reveal(), "\n") {
		return nil
	}
	return []Diagnostic{{
		Warning: true,
		Summary: strings.Join(path, ".") + " ends in a line break, which counts as part of it",
		Detail:  "Wrap the value in trimspace(…) if it comes from a file.",
		Path:    path,
	}}
}

// TLS is the tls block that plugins share, for TLS 1.2 and 1.3 as a client. The field is a
// TLS, or a *TLS where the absence of the block means something; see Request.TLS.
type TLS struct {
	CAFile             string   `tunneld:"ca_file" path:"file" doc:"PEM file with the authorities to trust instead of the system's"`
	CertFile           string   `tunneld:"cert_file" path:"file" doc:"PEM file with the client's certificate chain"`
	KeyFile            string   `tunneld:"key_file" path:"file" doc:"PEM file with the client's private key"`
	ServerName         string   `tunneld:"server_name" doc:"the name to request and verify, instead of the far end's host"`
	MinVersion         string   `tunneld:"min_version" default:"1.2" one_of:"1.2,1.3" doc:"the oldest version to accept"`
	MaxVersion         string   `tunneld:"max_version" one_of:"1.2,1.3" doc:"the newest version to offer"`
	CipherSuites       []string `tunneld:"cipher_suites" doc:"the cipher suites of TLS 1.2 to offer, by their IANA names; Go's choice by default. Those of TLS 1.3 cannot be chosen"`
	InsecureSkipVerify bool     `tunneld:"insecure_skip_verify" default:"false" doc:"accept any certificate: whoever answers can read and change everything"`

	KeyLogFile string `tunneld:"key_log_file" doc:"a file for the keys of all sessions, for Wireshark: whoever reads it can decrypt everything. Only if TUNNELD_KEY_LOG=1 is in the environment, too"`

	kept *tlsKept // of an upstream in use; nil: files are read at each use
}

// Config returns the configuration for a connection to host, a name or IP address
// without port. Call it for each dial, from any number of goroutines.
//
// In an upstream that has started, the files are followed: once they have changed, and
// then stayed as they are for a second, handshakes use what they hold. Where that is not
// usable, what they held before stays in use, with a warning in the log. Sessions are
// resumed. Before Start, and in a block that the program made, each call reads the files.
//
// The caller may change the result, but not its RootCAs. A caller that sets Certificates
// sets GetClientCertificate and ClientSessionCache to nil.
func (t TLS) Config(host string) (*tls.Config, error) {
	c, err := t.client().Config(cmp.Or(t.ServerName, host))
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

// Client speaks TLS on conn as the block says and returns once the handshake with host, a
// name or IP address without port, is done or ctx ends. On an error conn is closed;
// otherwise it belongs to the result. An end of file without a close_notify is an error
// of Read, as RelayConn needs it; see StrictEOF. With TLS 1.3 a server that refuses the
// client's certificate says so afterwards: that is the error of the first Read, which
// NetworkError knows.
func (t TLS) Client(ctx context.Context, conn net.Conn, host string) (*tls.Conn, error) {
	config, err := t.Config(host)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c := tls.Client(StrictEOF(conn), config)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// Validate checks the block and reads the files that it names; path is where the block
// stands in the upstream's body, usually "tls". Call it from Validate of the upstream.
func (t TLS) Validate(path ...string) []Diagnostic {
	at := func(names ...string) []string { return slices.Concat(path, names) }
	var ds []Diagnostic
	if t.CAFile != "" {
		if _, err := tlsconf.LoadPool(t.CAFile); err != nil {
			ds = append(ds, Diagnostic{NotYet: errors.Is(err, fs.ErrNotExist), Summary: "cannot use the authorities: " + err.Error(), Detail: "Name a readable PEM file with at least one certificate.", Path: at("ca_file")})
		}
	}
	if !hostname.IsName(t.ServerName) {
		ds = append(ds, Diagnostic{Summary: "server_name is no name of a host", Detail: "Write the name in the server's certificate.", Path: at("server_name")})
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
	case t.KeyFile == "":
		ds = append(ds, Diagnostic{Summary: "a certificate without its private key", Detail: "Set key_file as well.", Path: at("cert_file")})
	case t.CertFile == "":
		ds = append(ds, Diagnostic{Summary: "a private key without its certificate", Detail: "Set cert_file as well.", Path: at("key_file")})
	default:
		if _, err := LoadKeyPair(t.CertFile, t.KeyFile); err != nil {
			ds = append(ds, Diagnostic{NotYet: errors.Is(err, fs.ErrNotExist), Summary: "cannot use the client's certificate: " + err.Error(), Detail: "Name readable PEM files that belong together.", Path: at("cert_file")})
		}
	}
	for _, p := range t.options().Problems() {
		ds = append(ds, Diagnostic{Warning: p.Warning, Summary: p.Summary, Detail: p.Detail, Path: at(p.Path()...)})
	}
	if t.InsecureSkipVerify {
		ds = append(ds, Diagnostic{Warning: true, Summary: "the far end's certificate is not checked", Detail: "Whoever answers can read and change everything. Set ca_file instead.", Path: at("insecure_skip_verify")})
	}
	return ds
}
