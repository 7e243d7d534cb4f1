package tlsconf

import (
	"crypto/tls"
	"fmt"

	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/hostname"
)

// maxSessions bounds what one client keeps to resume sessions with: one for each
// name of a far end. An upstream has one, or its proxy's beside it.
const maxSessions = 16

// ClientOptions is the client's side of TLS. The zero value is that of a client that
// trusts the system's authorities.
type ClientOptions struct {
	CAFile            string // the authorities to trust instead of the system's
	CertFile, KeyFile string // the client's certificate and its key
	// MinVersion and MaxVersion are "1.2" or "1.3"; empty they are the oldest and the newest.
	MinVersion, MaxVersion string
	// CipherSuites are those of TLS 1.2 to offer, as JoinSuites makes it of names; empty:
	// those that Go holds good. Of TLS 1.3 there is no choice.
	CipherSuites string
	// KeyLogFile takes the keys of all sessions, if KeyLogEnv is 1, too. None is resumed
	// then: of a resumed one of TLS 1.2 crypto/tls writes nothing.
	KeyLogFile string
	// InsecureSkipVerify accepts any certificate.
	InsecureSkipVerify bool
}

// Client makes configurations for the client's side. It may be used by several
// goroutines at once.
type Client struct {
	options ClientOptions
	kept    kept[clientState]
}

// clientState is what the files held at one time. Sessions are of that time, too: one
// that is resumed is not asked for its certificate again, and the client's is the one
// that began it.
type clientState struct {
	config      *tls.Config
	certificate *tls.Certificate // nil: none
	sessions    tls.ClientSessionCache
}

// NewClient reads nothing yet. Until Follow, the files are read by Config, once a second at
// most, and no session is resumed. The ClientSessionCache of two configurations is the same one if the
// files held the same for both.
func NewClient(o ClientOptions) *Client {
	c := &Client{options: o}
	c.kept.make = c.load
	for _, file := range []string{o.CAFile, o.CertFile, o.KeyFile} {
		if file != "" {
			c.kept.files = append(c.kept.files, file)
		}
	}
	return c
}

// Read reads the files for Follow, which then reads none itself and does not block. It begins
// nothing that would have to be ended.
func (c *Client) Read() { c.kept.prepare() }

// Follow reads the files, and again when they have changed; new handshakes use the
// new content. If that is unusable, the old content stays in use. report is called
// with the reason, and with nil once the content is usable again. The error is one of
// the follower only. Stop ends it.
func (c *Client) Follow(by *follow.Follower, report func(error)) error {
	return c.kept.follow(by, report)
}

// Stop ends Follow. It may be called more than once.
func (c *Client) Stop() { c.kept.stop() }

// Check returns why the files are unusable now, or nil. Of followed ones it is what
// Follow has found, or the last change that mattered.
func (c *Client) Check() error {
	_, err := c.kept.get()
	return err
}

// Config returns the configuration for a connection to a server of this name, which may be
// beyond ASCII, and end in a dot, which is not sent (RFC 6066, section 3). It is the caller's
// to change, its authorities excepted. While it is used its certificate
// is the newest of the followed files; its authorities stay.
func (c *Client) Config(serverName string) (*tls.Config, error) {
	now, err := c.kept.get()
	if err != nil {
		return nil, err
	}
	name, err := hostname.ASCII(serverName)
	if err != nil {
		return nil, fmt.Errorf("the server's name: %w", err)
	}
	config := now.config.Clone()
	config.ServerName = hostname.WithoutDot(name)
	if c.options.KeyLogFile == "" {
		config.ClientSessionCache = sessions{c, now}
	}
	if c.hasCertificate() {
		config.GetClientCertificate = c.present
	}
	return config, nil
}

// Certificates are those that are in use. There is none where it cannot be read.
func (c *Client) Certificates() []Certificate {
	if !c.hasCertificate() {
		return nil
	}
	now, err := c.kept.get()
	if err != nil {
		return nil
	}
	return []Certificate{{File: c.options.CertFile, NotAfter: notAfter(*now.certificate)}}
}

func (c *Client) hasCertificate() bool { return c.options.CertFile != "" || c.options.KeyFile != "" }

// present gives the client's certificate, where the server may take it.
func (c *Client) present(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	now, err := c.kept.get()
	if err != nil {
		return nil, err
	}
	if asked.SupportsCertificate(now.certificate) != nil {
		return new(tls.Certificate), nil // none: the server says what follows from that
	}
	return now.certificate, nil
}

func (c *Client) load(r reading) (*clientState, error) {
	o := c.options
	least, most, err := versionRange(o.MinVersion, o.MaxVersion)
	if err != nil {
		return nil, err
	}
	s := &clientState{
		config:   &tls.Config{MinVersion: least, MaxVersion: most, InsecureSkipVerify: o.InsecureSkipVerify},
		sessions: tls.NewLRUClientSessionCache(maxSessions),
	}
	if s.config.CipherSuites, err = suiteIDs(splitSuites(o.CipherSuites)); err != nil {
		return nil, err
	}
	if o.KeyLogFile != "" {
		if !keyLogAsked() {
			return nil, errKeyLogOnce
		}
		s.config.KeyLogWriter = keyLog(o.KeyLogFile)
	}
	if o.CAFile != "" {
		if s.config.RootCAs, err = r.pool(o.CAFile); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
	}
	if c.hasCertificate() {
		pair, err := r.keyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		s.certificate = &pair
	}
	return s, nil
}

// sessions are those of one state, as long as it is the newest.
type sessions struct {
	client *Client
	of     *clientState
}

func (s sessions) current() bool {
	f := s.client.kept.following.Load()
	return f != nil && f.now.Load().value == s.of
}

// Get implements tls.ClientSessionCache.
func (s sessions) Get(key string) (*tls.ClientSessionState, bool) {
	if !s.current() {
		return nil, false
	}
	return s.of.sessions.Get(key)
}

// Put implements tls.ClientSessionCache. A session that began with an older
// certificate is not kept, though it ends with a newer one.
func (s sessions) Put(key string, session *tls.ClientSessionState) {
	if s.current() {
		s.of.sessions.Put(key, session)
	}
}
