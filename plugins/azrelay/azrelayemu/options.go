package azrelayemu

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/tunneld/tunneld/plugins/azrelay/internal/bridge"
)

// Rights is what a key allows.
type Rights uint8

// The rights of a shared access policy. Manage includes the others.
const (
	Send Rights = 1 << iota
	Listen
	Manage
)

// has says whether r allows what want asks for.
func (r Rights) has(want Rights) bool { return r&Manage != 0 || r&want == want }

// Key is a shared access policy.
type Key struct {
	Value  string
	Rights Rights
}

// HybridConnection is an entity of the namespace.
type HybridConnection struct {
	// Keys are by name, besides those of the namespace.
	Keys map[string]Key
	// Anonymous lets senders in without a token. Listeners always need one.
	Anonymous bool
}

// The framings of a Forward.
const (
	FramingRaw      = "raw"
	FramingAzbridge = "azbridge"
)

// Forward is a listener that the emulator brings along: it forwards each
// connection of a hybrid connection to a TCP address.
type Forward struct {
	HybridConnection string
	// Framing is FramingRaw, the default, or FramingAzbridge.
	Framing string
	// Target is where raw connections go, "host:port".
	Target string
	// Ports are the targets by port name, for azbridge.
	Ports map[string]string
	// UDPPorts are the names of azbridge's ports that it forwards as UDP: who
	// asks for a stream is refused.
	UDPPorts []string
}

// Options is how the service is set up. The zero value is a service without
// hybrid connections on a free port of 127.0.0.1.
type Options struct {
	// Address is "host:port" of this machine alone; default "127.0.0.1:0".
	Address string
	// TLS serves wss:// with a certificate of an authority made for the run; see
	// Server.CA.
	TLS bool
	// Namespace is a host name that tokens may be for, besides the one by which
	// a client came. It is in the certificate.
	Namespace string
	// Keys are the namespace's, by name.
	Keys map[string]Key
	// HybridConnections are the entities, by path. Forward adds what it names.
	HybridConnections map[string]HybridConnection
	Forward           []Forward
	// AcceptTimeout is how long a sender waits for a listener to accept;
	// default 30 s, as the service has it.
	AcceptTimeout time.Duration
	// Now is the service's clock; default time.Now.
	Now func() time.Time
	// Log takes what happens to each connection, at level debug and without
	// tokens; default: nowhere.
	Log *slog.Logger
	// Faults are the failures to begin with; see Server.SetFaults.
	Faults Faults
}

// Faults are failures on demand. The zero value has none. They hold for
// connections that begin after they were set.
type Faults struct {
	// Status refuses every sender with this status and Reason.
	Status int
	Reason string
	// BadAccept answers the opening handshake with a wrong Sec-WebSocket-Accept.
	BadAccept bool
	// Extension answers with permessage-deflate, which nobody offered.
	Extension bool
	// Hang takes senders' requests and never answers.
	Hang bool
	// DropPings forwards no ping, so that none is answered.
	DropPings bool
	// CutAfter ends a tunnel without a Close frame once so many bytes went
	// through it in one direction; 0: never. CutFIN ends it with FIN, else it is
	// reset.
	CutAfter int64
	CutFIN   bool
	// CloseAfter has the service send Close with CloseCode to both ends once so
	// many bytes went through in one direction; 0: never.
	CloseAfter int64
	CloseCode  int
}

// check returns the options with defaults filled in.
func (o Options) check() (Options, error) {
	if o.AcceptTimeout <= 0 {
		o.AcceptTimeout = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for i, f := range o.Forward {
		if err := f.check(); err != nil {
			return o, fmt.Errorf("forward %d: %w", i, err)
		}
	}
	return o, nil
}

func (f Forward) check() error {
	if strings.Trim(f.HybridConnection, "/") == "" {
		return fmt.Errorf("no hybrid connection is named")
	}
	switch f.Framing {
	case "", FramingRaw:
		if _, _, err := net.SplitHostPort(f.Target); err != nil {
			return fmt.Errorf("target %q: %w", f.Target, err)
		}
	case FramingAzbridge:
		for name, target := range f.Ports {
			if err := bridge.CheckName(name); err != nil {
				return err
			}
			if _, _, err := net.SplitHostPort(target); err != nil {
				return fmt.Errorf("target %q: %w", target, err)
			}
		}
	default:
		return fmt.Errorf("framing %q is neither raw nor azbridge", f.Framing)
	}
	return nil
}
