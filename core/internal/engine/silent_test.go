package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/socks5"
)

// crowd is how many clients a test can have, at most the wanted: each takes two
// descriptors of this process, of which Go has raised the limit at its start, and
// a goroutine.
func crowd(t *testing.T, wanted int) int {
	t.Helper()
	const spare = 1000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(wanted, max(100, (int(limit.Cur)-spare)/2))
	if raceDetector {
		n = min(n, 4000) // the detector dies of 8128 goroutines
	}
	if n < wanted {
		t.Logf("%d clients instead of %d: %d descriptors, race detector %v", n, wanted, limit.Cur, raceDetector)
	}
	return n
}

func dialFrom(t testing.TB, source, address string) net.Conn {
	t.Helper()
	c, err := connect(t.Context(), source, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// connect connects from an address, or from any.
func connect(ctx context.Context, source, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// through connects to target by a socks5 listener, and has something echoed.
func through(t *testing.T, source, address, target string) {
	t.Helper()
	c, code := askFor(t, source, address, target, "hello")
	defer c.Close()
	heard := make([]byte, len("hello"))
	if n, err := io.ReadFull(c, heard); err != nil || code != socks5.Succeeded || string(heard) != "hello" {
		t.Fatalf("a client from %s heard reply %d and %q, %v", source, code, heard[:n], err)
	}
}

// askFor asks a socks5 listener for target, with ahead behind the request, and returns
// the reply.
func askFor(t *testing.T, source, address, target, ahead string) (net.Conn, socks5.Code) {
	t.Helper()
	c := dialFrom(t, source, address)
	code, err := ask(c, target, ahead)
	if err != nil {
		t.Fatalf("a client from %s: %v", source, err)
	}
	return c, code
}

// ask is askFor on a connection.
func ask(c net.Conn, target, ahead string) (socks5.Code, error) {
	at, err := netip.ParseAddrPort(target)
	if err != nil {
		return 0, err
	}
	b, err := socks5.AppendGreeting(nil, socks5.MethodNone)
	if err == nil {
		b, err = socks5.AppendRequest(b, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: at.Addr().String(), Port: at.Port()}})
	}
	if err == nil {
		_, err = c.Write(append(b, ahead...))
	}
	if err != nil {
		return 0, err
	}
	heard := make([]byte, 2+10)
	if n, err := io.ReadFull(c, heard); err != nil {
		return 0, fmt.Errorf("heard % x: %w", heard[:n], err)
	}
	return socks5.Code(heard[3]), nil
}

// inUse is the memory that is in use, after a collection.
func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// handshakes are a listener's.
func (r *rig) handshakes(id string) part {
	r.slots.mu.Lock()
	defer r.slots.mu.Unlock()
	return r.slots.listeners[id].handshakes
}

// TestSilentClients: as many clients as a listener can take connect to it and say
// nothing, and more keep coming. Those who have something to say get in at once,
// there and at another listener; the memory is bounded, and is given back.
func TestSilentClients(t *testing.T) {
	silent := crowd(t, 9000)
	const patient = "address = \"127.0.0.1:0\"\n" + nettest.OpenTargets + " timeouts {\n  handshake = \"0s\"\n }\n"
	r := start(t, nil, func(string) string {
		return fmt.Sprintf("daemon {\n max_connections = %d\n}\nupstream \"direct\" \"x\" {}\nroute \"all\" {\n upstreams = [upstream.direct.x]\n}\n"+
			"listener \"socks5\" \"flooded\" {\n%s}\nlistener \"socks5\" \"other\" {\n%s}\n", silent, patient, patient)
	})
	flooded, _ := r.at(t, "socks5.flooded")
	other, _ := r.at(t, "socks5.other")
	before := inUse()

	// All at once, and then one for one.
	clients := make(chan net.Conn, silent)
	var left atomic.Int64
	left.Store(int64(silent))
	join := func() bool {
		if left.Add(-1) < 0 {
			return false
		}
		c, err := net.DialTimeout("tcp", flooded[0], patience)
		if err != nil {
			t.Error(err)
			return false
		}
		clients <- c
		return true
	}
	var flood sync.WaitGroup
	for range 4 {
		flood.Go(func() {
			for join() {
			}
		})
	}
	flood.Wait()
	through(t, "127.0.0.1", other[0], r.echo)
	// A client that waits behind them is accepted after them.
	through(t, "127.0.0.2", flooded[0], r.echo)
	through(t, "127.0.0.1", flooded[0], r.echo)
	held := r.handshakes("socks5.flooded")
	if most := min(silent, maxHandshakes); held.taken > most-most/4+held.own || held.taken < most/2 {
		t.Errorf("%d are in their handshake of %d", held.taken, silent)
	}
	each := (inUse() - before) / held.taken
	t.Logf("%d in their handshake, %d bytes each, with their client", held.taken, each)
	if each > 20<<10 {
		t.Errorf("%d bytes are held of each client", each)
	}

	stop := make(chan struct{})
	flood.Go(func() {
		for {
			select {
			case <-stop:
				return
			case c := <-clients:
				c.Close()
				left.Add(1)
				if !join() {
					return
				}
			}
		}
	})
	for range 20 {
		through(t, "127.0.0.1", other[0], r.echo)
		through(t, "127.0.0.2", flooded[0], r.echo)
	}
	close(stop)
	flood.Wait()
	close(clients)
	for c := range clients {
		c.Close()
	}
	r.connections.Wait()
	if now := r.handshakes("socks5.flooded"); now.taken != 0 {
		t.Errorf("%d are in their handshake", now.taken)
	}
	if after := inUse() - before; after > each*held.taken/4 {
		t.Errorf("%d bytes of %d are not given back", after, each*held.taken)
	}
}

// TestRefusedClientGivesWay: a client that does not read why it gets no tunnel, and
// does not leave, gives way as one that is silent does.
func TestRefusedClientGivesWay(t *testing.T) {
	const limit = 4
	r := start(t, nil, func(string) string {
		return fmt.Sprintf("daemon {\n max_connections = %d\n}\nupstream \"direct\" \"x\" {}\nroute \"all\" {\n match {\n hosts = [\"127.0.0.0/8\"]\n }\n upstreams = [upstream.direct.x]\n}\n"+
			"listener \"socks5\" \"a\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+"}\n", limit)
	})
	at, _ := r.at(t, "socks5.a")
	for range 3 * limit {
		c := dialFrom(t, "127.0.0.1", at[0])
		if _, err := c.Write([]byte("\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50")); err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, 2+10)
		if _, err := io.ReadFull(c, heard); err != nil || heard[3] != byte(socks5.NotAllowed) {
			t.Fatalf("heard % x, %v", heard, err)
		}
	}
	through(t, "127.0.0.1", at[0], r.echo)
}

// TestSilentScrapes: clients of the metrics that say nothing, or not all, take few
// descriptors, and lock nobody out.
func TestSilentScrapes(t *testing.T) {
	r := start(t, nil, func(echo string) string {
		return listeners(echo, "metrics {\n address = \"127.0.0.1:0\"\n}\n", "127.0.0.1:0")
	})
	at := r.metricsSockets()[0].bound()
	var silent []net.Conn
	for i := range 3 * maxScrapes {
		c := dialFrom(t, "127.0.0.1", at.String())
		if i%2 == 0 {
			if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		silent = append(silent, c)
	}
	scrape(t, at)
	for i, c := range silent[:2*maxScrapes] {
		if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("client %d: read %d, %v; want the end", i, n, err)
		}
	}
	// They made room, and did not run out of their time: a newer one goes on.
	newest := silent[len(silent)-2]
	if _, err := io.WriteString(newest, "Host: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	ok := make([]byte, len("HTTP/1.1 200 OK"))
	if _, err := io.ReadFull(newest, ok); err != nil || string(ok) != "HTTP/1.1 200 OK" {
		t.Errorf("read %q, %v", ok, err)
	}
}
