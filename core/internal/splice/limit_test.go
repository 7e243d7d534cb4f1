package splice

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// limit returns rates of one block with a bandwidth.
func limit(p *Pump, b Bandwidth) (*Rate, *Rates) {
	block := &Rate{}
	p.Limit(map[*Rate]Bandwidth{block: b})
	return block, NewRates(block)
}

// within reads until the end, and expects that at no time more has come than a rate allows
// since began. It is how much has come.
func within(t *testing.T, c io.Reader, rate int64, began time.Time) []byte {
	t.Helper()
	var got []byte
	b := make([]byte, 64<<10)
	for {
		n, err := c.Read(b)
		got = append(got, b[:n]...)
		if most := int64(float64(rate)*time.Since(began).Seconds()) + ahead(rate, portion(rate, ownTurn)); int64(len(got)) > most {
			t.Errorf("%d bytes after %s, want at most %d", len(got), time.Since(began), most)
			return got
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			return got
		}
	}
}

// TestLimitHolds: each way, of each tunnel and in sum, by a relay or not, no byte comes too
// early; and all come, with the end behind them.
func TestLimitHolds(t *testing.T) {
	const rate, size = 1 << 20, 300 << 10
	body := stream(rand.New(rand.NewPCG(1, 1)), size)
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		for _, relay := range []bool{false, true} {
			for name, b := range map[string]Bandwidth{"up": {Up: rate}, "down": {Down: rate}, "total up": {TotalUp: rate}, "total down": {TotalDown: rate}} {
				t.Run(fmt.Sprintf("relay=%v, %s", relay, name), func(t *testing.T) {
					t.Parallel()
					_, rates := limit(p, b)
					began := time.Now()
					var traffic tunnel.Traffic
					r := newRig(t, start, shape{relay: relay, rates: rates, traffic: &traffic})
					var wg sync.WaitGroup
					wg.Go(func() {
						write(t, r.client, string(body))
						if err := r.client.CloseWrite(); err != nil {
							t.Error(err)
						}
					})
					wg.Go(func() {
						write(t, r.upstream, string(body))
						r.halfCloseUpstream(t)
					})
					limited, free, paused, other := io.Reader(r.upstream), io.Reader(r.client), &traffic.Up, &traffic.Down
					if strings.Contains(name, "down") {
						limited, free, paused, other = free, limited, other, paused
					}
					wg.Go(func() {
						if got := within(t, limited, rate, began); !bytes.Equal(got, body) {
							t.Errorf("%d bytes, or other ones, of %d", len(got), size)
						}
					})
					wg.Go(func() {
						if got, err := io.ReadAll(free); err != nil || !bytes.Equal(got, body) {
							t.Errorf("the other way: %d bytes, %v", len(got), err)
						}
					})
					wg.Wait()
					if r.relay != nil {
						r.relay.end(nil)
					}
					if res := r.wait(t); res.Err != nil {
						t.Errorf("result %+v", res)
					}
					if took := time.Since(began); paused.Paused.Load() < int64(100*time.Millisecond) || paused.Paused.Load() > int64(took) || other.Paused.Load() != 0 {
						t.Errorf("paused for %d and %d ns in %s", paused.Paused.Load(), other.Paused.Load(), took)
					}
				})
			}
		}
	})
}

// TestTotalHolds: all tunnels together keep to it, whichever pump has them, and each ends.
func TestTotalHolds(t *testing.T) {
	const rate, tunnels, size = 2 << 20, 16, 64 << 10
	p := newPump(t)
	_, rates := limit(p, Bandwidth{TotalUp: rate})
	began := time.Now()
	var mu sync.Mutex
	sum := int64(0)
	var wg sync.WaitGroup
	for i := range tunnels {
		start := p.Start
		if i%4 == 0 {
			start = p.startPortable
		}
		r := newRig(t, start, shape{rates: rates, relay: i%3 == 0})
		wg.Go(func() {
			write(t, r.client, string(make([]byte, size)))
			if err := r.client.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			b := make([]byte, size)
			for left := size; left > 0; {
				n, err := r.upstream.Read(b)
				if err != nil {
					t.Error(err)
					return
				}
				left -= n
				mu.Lock()
				sum += int64(n)
				// What the portable pump has read waits for its place and for nothing else.
				if most := int64(float64(rate)*time.Since(began).Seconds()) + ahead(rate, portion(rate, totalTurn)); sum > most {
					t.Errorf("%d bytes after %s, want at most %d", sum, time.Since(began), most)
				}
				mu.Unlock()
			}
			expectEOF(t, r.upstream, "")
			r.closeUpstream(t)
			if res := r.wait(t); res.Err != nil {
				t.Errorf("result %+v", res)
			}
		})
	}
	wg.Wait()
}

// TestSmallMessages: they count for what they are, and not for the turn that each could have
// had. With turns the last one would be late by minutes.
func TestSmallMessages(t *testing.T) {
	const rate, messages = 16 << 10, 1000
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		for name, b := range map[string]Bandwidth{"each": {Up: rate, Down: rate}, "total": {TotalUp: rate, TotalDown: rate}} {
			t.Run(name, func(t *testing.T) {
				_, rates := limit(p, b)
				r := newRig(t, start, shape{rates: rates})
				for range messages {
					write(t, r.client, "ping")
					read(t, r.upstream, "ping")
					write(t, r.upstream, "pong")
					read(t, r.client, "pong")
				}
			})
		}
	})
}

// TestUnusedTurns: what a tunnel was granted and has not used is not kept for it: others have
// it at once.
func TestUnusedTurns(t *testing.T) {
	const rate, tunnels = 16 << 10, 100
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		_, rates := limit(p, Bandwidth{TotalUp: rate})
		var traffic tunnel.Traffic
		for range tunnels {
			r := newRig(t, start, shape{rates: rates, traffic: &traffic})
			write(t, r.client, "x")
			read(t, r.upstream, "x")
		}
		kept := time.Duration(tunnels) * time.Second * time.Duration(portion(rate, totalTurn)) / rate
		if paused := time.Duration(traffic.Up.Paused.Load()); paused > kept/2 {
			t.Errorf("%d bytes waited for %s", tunnels, paused)
		}
	})
}

// TestMessagesOfMoreThanATurn: no read takes more than it may.
func TestMessagesOfMoreThanATurn(t *testing.T) {
	const rate, size = 256 << 10, 12 << 10
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		_, rates := limit(p, Bandwidth{TotalUp: rate})
		began := time.Now()
		r := newRig(t, start, shape{rates: rates})
		for i := range int64(16) {
			write(t, r.client, strings.Repeat("x", size))
			read(t, r.upstream, strings.Repeat("x", size))
			if got, most := (i+1)*size, int64(float64(rate)*time.Since(began).Seconds())+ahead(rate, portion(rate, totalTurn)); got > most {
				t.Fatalf("%d bytes after %s, want at most %d", got, time.Since(began), most)
			}
		}
	})
}

// TestLimitChanges: a limit begins to apply to a tunnel that is open, is raised and ends to
// apply.
func TestLimitChanges(t *testing.T) {
	const rate = 512 << 10
	eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
		for name, of := range map[string]func(rate int64) Bandwidth{
			"each":  func(rate int64) Bandwidth { return Bandwidth{Up: rate} },
			"total": func(rate int64) Bandwidth { return Bandwidth{TotalUp: rate} },
		} {
			t.Run(name, func(t *testing.T) {
				block, rates := limit(p, Bandwidth{})
				r := newRig(t, start, shape{rates: rates})
				var sending sync.WaitGroup
				defer sending.Wait()
				defer r.client.Close()
				sending.Go(func() { _, _ = io.Copy(r.client, zeros{}) }) // until it is closed
				skip := func() {
					t.Helper()
					if _, err := io.CopyN(io.Discard, r.upstream, 32<<20); err != nil {
						t.Fatal(err)
					}
				}
				skip()
				p.Limit(map[*Rate]Bandwidth{block: of(rate)})
				began, got, b := time.Now(), int64(0), make([]byte, 256<<10)
				for time.Since(began) < time.Second {
					n, err := r.upstream.Read(b)
					if got += int64(n); err != nil {
						t.Fatal(err)
					}
					if most := int64(float64(rate)*time.Since(began).Seconds()) + ahead(rate, portion(rate, ownTurn)) + buffered; got > most {
						t.Fatalf("%d bytes after %s, want at most %d", got, time.Since(began), most)
					}
				}
				p.Limit(map[*Rate]Bandwidth{block: of(1)})
				p.Limit(map[*Rate]Bandwidth{block: {}})
				skip()
			})
		}
	})
}

// buffered is more than the sockets and the pump hold of what was not limited.
const buffered = 16 << 20

// TestLimitedTLS: what TLS wraps is limited as well, each way.
func TestLimitedTLS(t *testing.T) {
	const rate = 1 << 20
	body := stream(rand.New(rand.NewPCG(2, 2)), 200<<10)
	for way, direction := range []string{"up", "down"} {
		t.Run(direction, func(t *testing.T) {
			block := &Rate{}
			r := newTLSRig(t, tls.VersionTLS13, tlsconf.Ends{Strict: true}, Tunnel{Rates: NewRates(block)})
			began := time.Now()
			r.pump.Limit(map[*Rate]Bandwidth{block: {Up: rate, Down: rate}})
			from, to := net.Conn(r.client), io.Reader(r.upstream)
			if way == upstream {
				from, to = r.upstream, r.client
			}
			var sending sync.WaitGroup
			defer sending.Wait()
			sending.Go(func() {
				write(t, from, string(body))
				if err := closeWrite(from); err != nil {
					t.Error(err)
				}
			})
			if got := within(t, to, rate, began); !bytes.Equal(got, body) {
				t.Errorf("%d bytes, or other ones, of %d", len(got), len(body))
			}
		})
	}
}
