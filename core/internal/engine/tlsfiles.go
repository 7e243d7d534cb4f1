package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// tlsFiles are the TLS clients of the direct upstreams and the TLS servers of the
// listeners, whose files are followed. Each outlives generations as long as its block has
// the same options, and with it what its files last held that was of use, and its sessions. A
// dial or a client of an older generation that has one which has ended reads the files by
// itself.
type tlsFiles struct {
	follower *follow.Follower
	log      *slog.Logger
	registry[tlsKey, *tlsFile]

	// ready are those that a configuration is about to bring, whose files were read. It is
	// touched with turn held alone.
	ready map[tlsKey]tlsSide
}

// tlsKey is a block with its options, which are comparable.
type tlsKey struct {
	kind    string // ofUpstream or ofListener
	id      string
	options any
}

// The kinds of blocks, as the log names them.
const (
	ofUpstream = "upstream"
	ofListener = "listener"
)

func clientKey(upstream string, o tlsconf.ClientOptions) tlsKey {
	return tlsKey{ofUpstream, upstream, o}
}

func serverKey(listener string, o tlsconf.ServerOptions) tlsKey {
	return tlsKey{ofListener, listener, fmt.Sprintf("%#v", o)} // names of files, and no pointers
}

// tlsSide is a client or a server.
type tlsSide interface {
	Read()
	Follow(by *follow.Follower, report func(error)) error
	Stop()
	Check() error
	Certificates() []tlsconf.Certificate
}

type tlsFile struct {
	tlsSide
	problem string // why what the files hold now is not in use
}

func newTLSFiles(by *follow.Follower, log *slog.Logger) *tlsFiles {
	return &tlsFiles{follower: by, log: log}
}

// prepare reads the files of the blocks that are new in a configuration, so that client and
// server need not. The error is of ctx alone. It is called with turn held, and so is forget, which
// comes once the configuration is in force, or is not to be.
func (all *tlsFiles) prepare(ctx context.Context, cfg *config.Config) error {
	ready := map[tlsKey]tlsSide{}
	add := func(key tlsKey, side tlsSide) {
		if _, known := all.get(key); !known {
			ready[key] = side
		}
	}
	for _, l := range cfg.Listeners {
		if l.TLS != nil {
			add(serverKey(l.ID(), l.TLS.Server), tlsconf.NewServer(l.TLS.Server))
		}
	}
	for _, u := range cfg.Upstreams {
		if u.Type == config.DirectType {
			newDirect(u, func(o tlsconf.ClientOptions) *tlsconf.Client {
				c := tlsconf.NewClient(o)
				add(clientKey(u.ID(), o), c)
				return c
			})
		}
	}
	read, err := reading(ctx, func() map[tlsKey]tlsSide {
		for _, side := range ready {
			side.Read()
		}
		return ready
	})
	all.ready = read
	return err
}

func (all *tlsFiles) forget() { all.ready = nil }

// client returns the client of an upstream. It does not block. It is called with turn held,
// after prepare.
func (all *tlsFiles) client(upstream string, o tlsconf.ClientOptions) *tlsconf.Client {
	return all.of(clientKey(upstream, o)).(*tlsconf.Client)
}

// server is the same for a listener.
func (all *tlsFiles) server(listener string, o tlsconf.ServerOptions) *tlsconf.Server {
	return all.of(serverKey(listener, o)).(*tlsconf.Server)
}

func (all *tlsFiles) of(key tlsKey) tlsSide {
	f, ok := all.get(key)
	if !ok {
		f = &tlsFile{tlsSide: all.ready[key]}
		all.follow(key, f)
		all.put(key, f)
	}
	return f.tlsSide
}

func (all *tlsFiles) follow(key tlsKey, f *tlsFile) {
	tell := func(err error) {
		all.mu.Lock()
		defer all.mu.Unlock()
		if f.problem = ""; err != nil {
			f.problem = "tls: " + err.Error()
		}
	}
	err := f.Follow(all.follower, func(err error) {
		tell(err)
		if err != nil {
			all.log.Warn("a file of a tls block has changed and cannot be used: the old content stays in use", key.kind, key.id, "err", err)
		} else {
			all.log.Info("the files of a tls block have changed, and are in use", key.kind, key.id)
		}
	})
	if err != nil {
		all.log.Warn("the files of a tls block are not followed, but read for connections, once a second at most", key.kind, key.id, "err", err)
		return
	}
	// The configuration has read them just before, and they may have changed since.
	if err := f.Check(); err != nil {
		tell(err)
		all.log.Warn("the files of a tls block cannot be used: connections fail until they can", key.kind, key.id, "err", err)
	}
}

// state returns the certificates that a block proves itself with, and which of its files
// cannot be used, and why.
func (all *tlsFiles) state(kind, id string) (certificates []status.Certificate, problem string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	var problems []string
	for key, f := range all.byKey {
		if key.kind != kind || key.id != id {
			continue
		}
		for _, cert := range f.Certificates() {
			certificates = append(certificates, status.Certificate{File: cert.File, NotAfter: cert.NotAfter})
		}
		if f.problem != "" {
			problems = append(problems, f.problem)
		}
	}
	slices.Sort(problems)
	return certificates, strings.Join(slices.Compact(problems), "; ")
}
