package sdk

import (
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/tlsconf"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// tlsKept is what was made of the tls blocks of an upstream while it is in use: files
// are followed, and sessions resumed. Copies of a block share it, and may differ: each
// form has a client of its own.
type tlsKept struct {
	follower *follow.Follower
	log      *slog.Logger
	changed  func() // what state returns may be another

	mu       sync.Mutex
	clients  map[tlsconf.ClientOptions]*tlsconf.Client
	problems map[tlsconf.ClientOptions]string // why what the files hold now is not in use
	closed   bool
}

// client returns the client of a block, whatever the server's name.
func (t TLS) client() *tlsconf.Client {
	o, k := t.options(), t.kept
	if k == nil {
		return tlsconf.NewClient(o)
	}
	k.mu.Lock()
	c := k.clients[o]
	made := c == nil
	if made {
		c = tlsconf.NewClient(o)
		k.clients[o] = c
		if !k.closed {
			k.follow(o, c)
		}
	}
	k.mu.Unlock()
	if made {
		k.changed()
	}
	return c
}

// TLS returns the block that block points to, and where it is nil the defaults, with
// sessions that are resumed as well. It is for fields of type *TLS.
func (r *Request) TLS(block *TLS) TLS {
	if block != nil {
		return *block
	}
	return TLS{kept: r.kept}
}

// options are all of the block but the name of the server.
func (t TLS) options() tlsconf.ClientOptions {
	return tlsconf.ClientOptions{
		CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile,
		MinVersion: t.MinVersion, MaxVersion: t.MaxVersion, CipherSuites: tlsconf.JoinSuites(t.CipherSuites),
		KeyLogFile: t.KeyLogFile, InsecureSkipVerify: t.InsecureSkipVerify,
	}
}

// follow is called with mu held.
func (k *tlsKept) follow(o tlsconf.ClientOptions, c *tlsconf.Client) {
	err := c.Follow(k.follower, func(err error) {
		k.mu.Lock()
		delete(k.problems, o)
		if err != nil {
			k.problems[o] = "tls: " + err.Error()
		}
		k.mu.Unlock()
		if err != nil {
			k.log.Warn("a file of the tls block has changed and cannot be used: the old content stays in use", "err", err)
		} else {
			k.log.Info("the files of the tls block have changed, and are in use")
		}
		k.changed()
	})
	if err != nil {
		k.log.Warn("the files of the tls block are not followed, but read for connections, once a second at most", "err", err)
	}
}

// state adds to an upstream's state what the blocks know.
func (k *tlsKept) state(to *pluginv1.UpstreamStatus) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ends := map[string]time.Time{}
	for _, c := range k.clients {
		for _, cert := range c.Certificates() {
			ends[cert.File] = cert.NotAfter
		}
	}
	for _, file := range slices.Sorted(maps.Keys(ends)) {
		to.Certificates = append(to.Certificates, &pluginv1.Certificate{File: file, NotAfter: timestamppb.New(ends[file])})
	}
	addProblems(to, k.problems)
}

// addProblems adds to an upstream's state why its files cannot be used, each reason once.
func addProblems[K comparable](to *pluginv1.UpstreamStatus, problems map[K]string) {
	all := slices.Compact(slices.Sorted(maps.Values(problems)))
	if to.FileProblem != "" {
		all = slices.Insert(all, 0, to.FileProblem)
	}
	to.FileProblem = strings.Join(all, "; ")
}

// close ends the following. Connections that are still made read the files.
func (k *tlsKept) close() {
	k.mu.Lock()
	k.closed = true
	clients := slices.Collect(maps.Values(k.clients))
	k.mu.Unlock()
	for _, c := range clients {
		c.Stop()
	}
}

// tlsBlocks finds the tls blocks of a struct that an author's configuration is, or is
// part of.
func tlsBlocks(v reflect.Value, found func(*TLS)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			tlsBlocks(v.Elem(), found)
		}
	case reflect.Struct:
		if t, ok := v.Addr().Interface().(*TLS); ok {
			found(t)
			return
		}
		for i := range v.NumField() {
			if f, ok, err := fieldOf(v.Type().Field(i)); ok && err == nil && f.nesting != pluginv1.Nesting_NESTING_UNSPECIFIED {
				tlsBlocks(v.Field(i), found)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			tlsBlocks(v.Index(i), found)
		}
	case reflect.Map: // its values have no address
		for _, label := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(v.MapIndex(label))
			tlsBlocks(e, found)
			v.SetMapIndex(label, e)
		}
	}
}
