package listen

import (
	"fmt"
	"slices"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// The kinds of listeners.
const (
	KindTCP    = "tcp"
	KindSOCKS5 = "socks5"
	KindHTTP   = "http"
	KindMixed  = "mixed"
	KindSNI    = "sni"
)

// Kind is a kind of listener, and the protocol that it speaks. All that differs
// from kind to kind is said here: the configuration, its documentation and the
// other kinds read it.
type Kind struct {
	// Name is the kind's in the configuration. It is empty for a protocol that no
	// listener speaks, and by which a client is known all the same.
	Name string
	// Summary is what it is for, in the documentation.
	Summary string
	// Attributes are what its block may hold beside what all listeners have. One
	// that is called "target" becomes Settings.Target.
	Attributes []*pluginv1.Attribute
	// Passwords says that the protocol can ask a client for a user and a password.
	Passwords bool
	// NamesTarget says that its clients name the target. Of the others the configuration
	// does.
	NamesTarget bool
	// Plain says that clients may send requests and want no tunnel: see Request.
	Plain bool
	// ThroughTLS says that its clients speak TLS with the target, and the listener none with
	// them.
	ThroughTLS bool
	// Speaks is the protocol's name; empty: it has none, and no client is known
	// by it.
	Speaks string
	// Begins says whether a client's first byte is one of the protocol.
	Begins func(first byte) bool
	// Astray is what to check where a client speaks the protocol on a listener of
	// another kind.
	Astray string
	// Foreign is what a client reads, in the protocol, on a listener that speaks
	// another one, or, where it is the protocol's own, that the client does not
	// speak it.
	Foreign func(speaks string) []byte
	// New makes the protocol of one listener.
	New func(Settings) Protocol
}

// Settings is what a listener's block says of its protocol.
type Settings struct {
	Target tunnel.Target
	// Values are those of all attributes, by name, with their defaults.
	Values map[string]any
}

// kinds is the one list of what listeners speak, and of what else they recognise.
var kinds = []Kind{tcpKind, socks5Kind, httpKind, mixedKind, sniKind, socks4Kind}

// Later are names that are taken for kinds to come.
var Later = []string{"redirect", "tproxy"}

// Kinds returns the kinds that a listener can have.
func Kinds() []Kind {
	return slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return k.Name == "" })
}

// FindKind returns the kind of that name that a listener can have.
func FindKind(name string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

// recognised is the kind whose protocol a client speaks, known by its first byte. Where none
// is, it is one without a name, whose clients read answer.
func recognised(first byte, answer func(speaks string) []byte) Kind {
	for _, k := range kinds {
		if k.Begins != nil && k.Begins(first) {
			return k
		}
	}
	return Kind{
		Speaks:  fmt.Sprintf("an unknown protocol (its first byte is 0x%02x)", first),
		Astray:  "check what connects to this port: the listener is a proxy, and its clients have to be set to it as such",
		Foreign: answer,
	}
}

// tlsFirst is why clients of a listener have to begin with TLS, and what to do about one that
// does not.
type tlsFirst struct {
	why, hint string
	postgres  string // the hint for a client of PostgreSQL
}

// withoutTLS is the answer to a client that does not begin with TLS, by the first bytes of it,
// of which there is one at least.
func withoutTLS(first []byte, by tlsFirst) *Failure {
	if beginsPostgres(first) {
		return postgresWithoutTLS(by)
	}
	client := recognised(first[0], sniKind.Foreign)
	return &Failure{
		Err:    &mistake{fmt.Sprintf("the client speaks %s without TLS, and %s", client.Speaks, by.why), by.hint},
		Answer: client.Foreign(sniKind.Speaks),
	}
}

// wrongProtocol is the answer to a client that does not speak the protocol of its
// listener's kind, known by its first byte: in the client's own protocol, where that
// is known, so that its user reads more than that a connection was closed.
func wrongProtocol(on Kind, first byte) *Failure {
	client := recognised(first, on.Foreign)
	return &Failure{
		Err:    &mistake{fmt.Sprintf("the client speaks %s on a listener of kind %s", client.Speaks, on.Name), client.Astray},
		Answer: client.Foreign(on.Speaks),
	}
}
