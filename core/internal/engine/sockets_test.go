package engine

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/nettest"
)

// TestAddressIsWrittenInAnotherWay: a socket that is kept is known by what the
// configuration in force says. Its name is then not needed to keep it once more.
func TestAddressIsWrittenInAnotherWay(t *testing.T) {
	r := start(t, map[string][]string{"localhost": {"127.0.0.1"}}, func(echo string) string { return listeners(echo, "", "localhost:0") })
	before := r.sockets("tcp.a")
	_, port := r.at(t, "tcp.a")
	r.reload(t, listeners(r.echo, "", "localhost:"+port))
	r.names.set(nil)
	r.reload(t, listeners(r.echo, "", "localhost:"+port))
	if now := r.sockets("tcp.a"); !slices.Equal(now, before) {
		t.Error("the socket is another")
	}
	visit(t, "127.0.0.1:"+port)
}

// TestLostAddress: an address that made room for a reload that failed, and that somebody
// else has taken meanwhile, is not told as served. The next reload binds it again.
func TestLostAddress(t *testing.T) {
	r := start(t, nil, func(echo string) string { return listeners(echo, "", nettest.FreeAddress(t), "127.0.0.1:0") })
	at, port := r.at(t, "tcp.a")
	kept, _ := r.at(t, "tcp.b")
	r.write(t, listeners(r.echo, "", "0.0.0.0:"+port, kept[0]))
	r.turn <- struct{}{}
	cfg, diags := config.Parse(r.path)
	tr := r.newTransition(renewal{cfg: cfg, diags: diags})
	steps := tr.steps()
	i := slices.IndexFunc(steps, func(s step) bool { return s.name == "sockets" })
	undo := steps[i].undo
	var taken net.Listener
	steps[i].undo = func(ctx context.Context) (err error) {
		for _, s := range tr.sockets.fresh {
			if err := s.close(); err != nil {
				t.Error(err)
			}
		}
		if taken, err = net.Listen("tcp", at[0]); err != nil {
			t.Error(err)
		}
		tr.sockets.fresh = nil
		return undo(ctx)
	}
	steps[len(steps)-1].prepare = func(context.Context) error { return errLost }
	err := transact(t.Context(), steps)
	<-r.turn
	if !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	defer taken.Close()
	r.log.Await(t, 1, "level", "ERROR", "msg", "an address is lost: it cannot be bound again", "address", at[0])
	s := r.Status()
	if l := s.Listeners[0]; l.Address != "" || len(l.Addresses) > 0 || !slices.Equal(l.LostAddresses, at) || l.State != status.Draining || len(s.NotReady()) != 1 {
		t.Errorf("status %+v, not ready: %q", l, s.NotReady())
	}
	if l := s.Listeners[1]; !slices.Equal(l.Addresses, kept) || len(l.LostAddresses) > 0 || l.State != status.Serving {
		t.Errorf("status of the other %+v", l)
	}
	visit(t, kept[0])
	taken.Close()
	r.reload(t, listeners(r.echo, "", at[0], kept[0]))
	if s := r.Status(); !slices.Equal(s.Listeners[0].Addresses, at) || len(s.NotReady()) > 0 {
		t.Errorf("status %+v", s.Listeners[0])
	}
	visit(t, at[0])
}

var errLost = errors.New("another step fails")
