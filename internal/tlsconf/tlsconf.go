// Package tlsconf is TLS for the daemon and plugins: configurations from followed files
// that a user named, resumed sessions, who may come in by the names of a certificate, when
// certificates expire, and how a direction ends: by the close_notify alert, as in RFC 8446,
// section 6.1, or by TCP's end of file alone, as the peers of some protocols want it.
//
// A Conn is crypto/tls on a connection that the caller has made. Beneath it the floor reads and
// writes in large pieces, and bounds what crypto/tls would hold of a client.
package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/userfile"
)

// maxPEM bounds a file of certificates or of a key, in bytes. A system's authorities
// together are some 200 KB.
const maxPEM = 4 << 20

// versions are those that can be asked for; "" stands for the oldest of them.
var versions = map[string]uint16{"": tls.VersionTLS12, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// versionRange reads min_version and max_version. most is 0 for the newest that there is.
func versionRange(minVersion, maxVersion string) (least, most uint16, err error) {
	least, ok := versions[minVersion]
	if maxVersion != "" {
		most = versions[maxVersion]
		ok = ok && most >= least
	}
	if !ok {
		return 0, 0, errors.New("min_version and max_version have to be 1.2 or 1.3, in this order")
	}
	return least, most, nil
}

// Certificate is one that is in use, and when it ends.
type Certificate struct {
	File string
	// NotAfter is the earliest of those of its chain.
	NotAfter time.Time
}

// LoadKeyPair is tls.LoadX509KeyPair for files that the user named: regular ones, of
// at most maxPEM bytes each. It never waits.
func LoadKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	return reading{}.keyPair(certFile, keyFile)
}

// LoadPool reads a file of authorities.
func LoadPool(file string) (*x509.CertPool, error) { return reading{}.pool(file) }

// reading remembers what it has read; a nil one does not.
type reading map[string]userfile.Sum

func (r reading) file(path string) ([]byte, error) {
	f, err := userfile.Read(path, maxPEM)
	if err != nil {
		return nil, err
	}
	if r != nil {
		r[path] = f.Sum()
	}
	return f.Data, nil
}

func (r reading) pool(file string) (*x509.CertPool, error) {
	pem, err := r.file(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}

func (r reading) keyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := r.file(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := r.file(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

// notAfter is when the first certificate of a chain ends.
func notAfter(chain tls.Certificate) (end time.Time) {
	for _, der := range chain.Certificate {
		c, err := x509.ParseCertificate(der)
		if err == nil && (end.IsZero() || c.NotAfter.Before(end)) {
			end = c.NotAfter
		}
	}
	return end
}

// kept is a value that is made of files. While they are followed it is made again
// when they change; what cannot be made leaves the one before.
type kept[T any] struct {
	files []string
	make  func(reading) (*T, error)

	following atomic.Pointer[following[T]] // nil: the files are read at a use
	mu        sync.Mutex                   // held by who begins and ends the following
	begin     *found[T]                    // what the following begins with; nil: what it finds
	last      unfollowed[T]
}

type following[T any] struct {
	watch *follow.Watch // nil: there are no files
	now   atomic.Pointer[made[T]]
}

// made is a value, or why there is none.
type made[T any] struct {
	value *T
	err   error
}

// found is what was made of files, and of which contents.
type found[T any] struct {
	made[T]
	sums reading
}

// readAgain is for how long what was read of files that are not followed is used: how often
// that is done is not up to those who connect.
const readAgain = time.Second

// unfollowed is what was found in files that are not followed.
type unfollowed[T any] struct {
	mu   sync.Mutex
	now  found[T]
	at   time.Time // when
	good found[T]  // the last that was of use
}

// note is called with mu held.
func (u *unfollowed[T]) note(f found[T]) {
	if f.err == nil {
		if u.good.value != nil && maps.Equal(u.good.sums, f.sums) {
			f = u.good // who has both can tell
		}
		u.good = f
	}
	u.now, u.at = f, time.Now()
}

// get returns the value. An error is of files that are not followed, or that were
// of no use from the beginning.
func (k *kept[T]) get() (*T, error) {
	if f := k.following.Load(); f != nil {
		m := f.now.Load()
		return m.value, m.err
	}
	k.last.mu.Lock()
	defer k.last.mu.Unlock()
	if k.last.at.IsZero() || time.Since(k.last.at) >= readAgain {
		k.last.note(k.look())
	}
	return k.last.now.value, k.last.now.err
}

func (k *kept[T]) look() (f found[T]) {
	f.sums = reading{}
	f.value, f.err = k.make(f.sums)
	return f
}

// prepare does what may take time of a follow that is to come.
func (k *kept[T]) prepare() {
	f := k.look()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begin = &f
}

// follow begins to follow the files. report is called after each change: with nil
// once the new value is in use, otherwise with the reason why it is not. See
// follow.Follower for the calls.
func (k *kept[T]) follow(by *follow.Follower, report func(error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.following.Load() != nil {
		return nil
	}
	if k.begin == nil {
		now := k.look()
		k.begin = &now
	}
	first := *k.begin
	k.begin = nil
	f := &following[T]{}
	f.now.Store(&first.made)
	files := make([]follow.File, len(k.files))
	for i, path := range k.files {
		files[i] = follow.File{Path: path, Sum: first.sums[path]}
	}
	if len(files) == 0 {
		k.following.Store(f)
		return nil
	}
	watch, err := by.Follow(files, func() {
		value, err := k.make(nil)
		if err == nil || f.now.Load().value == nil {
			f.now.Store(&made[T]{value, err})
		}
		report(err)
	})
	if err != nil {
		k.last.mu.Lock()
		defer k.last.mu.Unlock()
		k.last.note(first)
		return err
	}
	f.watch = watch
	k.following.Store(f)
	return nil
}

// stop ends the following: from then on the files are read at a use.
func (k *kept[T]) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.following.Swap(nil); f != nil && f.watch != nil {
		f.watch.Stop()
	}
}
