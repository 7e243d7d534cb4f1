package engine

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// tlsClients are the TLS clients of the direct upstreams, whose files are followed. A
// client outlives generations as long as its upstream has the same options, and with it
// what its files last held that was of use, and its sessions.
type tlsClients struct {
	follower *follow.Follower
	log      *slog.Logger

	mu    sync.Mutex
	byKey map[tlsKey]*tlsClient
}

type tlsKey struct {
	upstream string // its ID
	options  tlsconf.ClientOptions
}

type tlsClient struct {
	*tlsconf.Client
	problem string // why what the files hold now is not in use
}

func newTLSClients(by *follow.Follower, log *slog.Logger) *tlsClients {
	return &tlsClients{follower: by, log: log, byKey: map[tlsKey]*tlsClient{}}
}

// of returns the client of an upstream, which is made where there is none. It is called
// with turn held.
func (all *tlsClients) of(upstream string, o tlsconf.ClientOptions) *tlsconf.Client {
	key := tlsKey{upstream, o}
	all.mu.Lock()
	c := all.byKey[key]
	all.mu.Unlock()
	if c == nil {
		c = &tlsClient{Client: tlsconf.NewClient(o)}
		all.follow(upstream, c)
		all.mu.Lock()
		all.byKey[key] = c
		all.mu.Unlock()
	}
	return c.Client
}

func (all *tlsClients) follow(upstream string, c *tlsClient) {
	tell := func(err error) {
		all.mu.Lock()
		defer all.mu.Unlock()
		if c.problem = ""; err != nil {
			c.problem = "tls: " + err.Error()
		}
	}
	err := c.Follow(all.follower, func(err error) {
		tell(err)
		if err != nil {
			all.log.Warn("a file of a tls block has changed and cannot be used: the old content stays in use", "upstream", upstream, "err", err)
		} else {
			all.log.Info("the files of a tls block have changed, and are in use", "upstream", upstream)
		}
	})
	if err != nil {
		all.log.Warn("the files of a tls block are not followed, but read for each connection", "upstream", upstream, "err", err)
		return
	}
	// The configuration has read them just before, and they may have changed since.
	if err := c.Check(); err != nil {
		tell(err)
		all.log.Warn("the files of a tls block cannot be used: connections fail until they can", "upstream", upstream, "err", err)
	}
}

// retain ends the clients that no upstream of the generation has; nil: all. A dial of an
// older generation that still has one reads the files by itself. It is called with turn
// held.
func (all *tlsClients) retain(used map[tlsKey]bool) {
	all.mu.Lock()
	var gone []*tlsClient
	for key, c := range all.byKey {
		if !used[key] {
			delete(all.byKey, key)
			gone = append(gone, c)
		}
	}
	all.mu.Unlock()
	for _, c := range gone {
		c.Stop() // it waits for a call, which takes mu
	}
}

// state returns the certificates that an upstream proves itself with, and which of its
// files cannot be used, and why.
func (all *tlsClients) state(upstream string) (certificates []status.Certificate, problem string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	var problems []string
	for key, c := range all.byKey {
		if key.upstream != upstream {
			continue
		}
		for _, cert := range c.Certificates() {
			certificates = append(certificates, status.Certificate{File: cert.File, NotAfter: cert.NotAfter})
		}
		if c.problem != "" {
			problems = append(problems, c.problem)
		}
	}
	slices.Sort(problems)
	return certificates, strings.Join(slices.Compact(problems), "; ")
}
