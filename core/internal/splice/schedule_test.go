package splice

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// farEnding is how a side of a random schedule ends its direction.
type farEnding int

const (
	halfClose farEnding = iota
	resets
)

// plan is what one side does.
type plan struct {
	size   int // bytes it sends
	piece  int // most bytes in one write
	slow   int // most bytes in one read, 0: no bound
	ending farEnding
	// resetAt is how many bytes it has sent when it resets.
	resetAt int
}

// largest is one in how many plans is for 64 MiB.
const largest = 40

func randomPlan(rnd *rand.Rand, mayReset bool) plan {
	sizes := []int{0, 1, 100, 5000, 16 << 10, 16<<10 + 1, 70 << 10, 1 << 20, 5 << 20}
	if rnd.IntN(largest) == 0 {
		sizes = []int{64 << 20}
	}
	p := plan{
		size:  sizes[rnd.IntN(len(sizes))],
		piece: []int{1, 3, 1000, 16 << 10, 1 << 20}[rnd.IntN(5)],
		slow:  []int{0, 0, 1, 700, 100 << 10}[rnd.IntN(5)],
	}
	if p.piece <= 3 {
		p.size = min(p.size, 20<<10)
	}
	if mayReset && rnd.IntN(3) == 0 {
		p.ending = resets
		p.resetAt = rnd.IntN(p.size + 1)
	}
	return p
}

// schedules is how many random tunnels a run makes; TUNNELD_SCHEDULES asks for
// more.
func schedules(t *testing.T) int {
	s := os.Getenv("TUNNELD_SCHEDULES")
	if s == "" {
		return 60
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRandomSchedules makes many tunnels of random size, pace and end, several
// at once. Every byte arrives in order, or both ends see an error; what is counted
// is what arrived; descriptors and goroutines return to where they were.
func TestRandomSchedules(t *testing.T) {
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	t.Run("tunnels", func(t *testing.T) {
		eachPumpOf(t, func(t *testing.T, p *Pump, start func(Tunnel)) {
			shared := &Rate{}
			p.Limit(map[*Rate]Bandwidth{shared: {TotalUp: 64 << 20, TotalDown: 64 << 20}})
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			slots := make(chan struct{}, 8)
			var wg sync.WaitGroup
			for i := range schedules(t) {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					t.Run(strconv.Itoa(i), func(t *testing.T) {
						schedule(t, p, shared, start, rand.New(rand.NewPCG(seed, uint64(i))))
					})
				})
			}
			wg.Wait()
		})
	})
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	// The last are on their way out.
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after", goroutines, runtime.NumGoroutine())
		}
	}
}

// schedule makes one. Half of them are limited, also by what they share.
func schedule(t *testing.T, p *Pump, shared *Rate, start func(Tunnel), rnd *rand.Rand) {
	s := shape{relay: rnd.IntN(2) == 0}
	plans := [2]plan{randomPlan(rnd, true), randomPlan(rnd, true)}
	for side, p := range plans {
		if other := &plans[1-side]; p.slow == 1 {
			other.size = min(other.size, 20<<10)
			other.resetAt = min(other.resetAt, other.size)
		} else if p.slow == 700 || other.piece <= 1000 {
			other.size = min(other.size, 5<<20)
			other.resetAt = min(other.resetAt, other.size)
		}
	}
	if rnd.IntN(2) == 0 {
		rates := [2]int64{}
		for side := range rates {
			rates[side] = []int64{0, 1 << 20, 100 << 20}[rnd.IntN(3)]
			plans[side].size = min(plans[side].size, cmp.Or(int(rates[side]), 8<<20))
			plans[side].resetAt = min(plans[side].resetAt, plans[side].size)
		}
		own := &Rate{}
		p.Limit(map[*Rate]Bandwidth{own: {Up: rates[client], Down: rates[upstream]}})
		s.rates = NewRates(own, shared)
	}
	streams := [2][]byte{stream(rnd, plans[0].size), stream(rnd, plans[1].size)}
	var traffic tunnel.Traffic
	s.traffic = &traffic
	r := newRig(t, start, s)
	ends := [2]halfCloser{r.client, r.upstream}
	broken := plans[0].ending == resets || plans[1].ending == resets
	var both sync.WaitGroup
	var got [2][]byte
	var readErrs, writeErrs [2]error
	for side := range ends {
		seed := rnd.Uint64()
		both.Go(func() {
			var wg sync.WaitGroup
			wg.Go(func() { writeErrs[side] = r.play(t, side, ends[side], plans[side], streams[side], seed) })
			wg.Go(func() { got[side], readErrs[side] = slowRead(ends[side], plans[side].slow) })
			wg.Wait()
			switch {
			case side == 0 || !s.relay:
			case broken:
				r.relay.end(errors.New("aborted"))
			default:
				r.relay.end(nil)
			}
		})
	}
	both.Wait()
	res := r.wait(t)
	desc := fmt.Sprintf("relay %v, plans %+v, result %+v, read %v, write %v", s.relay, plans, res, readErrs, writeErrs)
	for side := range ends {
		if !bytes.HasPrefix(streams[1-side], got[side]) {
			t.Fatalf("side %d received other bytes than were sent: %s", side, desc)
		}
		if !broken && (readErrs[side] != nil || writeErrs[side] != nil || len(got[side]) != len(streams[1-side])) {
			t.Fatalf("side %d received %d of %d bytes: %s", side, len(got[side]), len(streams[1-side]), desc)
		}
	}
	if !broken && res.Err != nil {
		t.Fatalf("a clean tunnel ended with an error: %s", desc)
	}
	for side, p := range plans {
		switch {
		case p.ending != resets:
		case side == 0 && s.relay:
			if plans[1].ending != resets && len(r.relay.aborted) == 0 {
				t.Fatalf("the plugin does not know: %s", desc)
			}
		case readErrs[1-side] == nil && writeErrs[1-side] == nil: // the system tells only once
			t.Fatalf("a reset looks like a clean end: %s", desc)
		}
	}
	if broken != (res.Err != nil) {
		t.Fatalf("another outcome: %s", desc)
	}
	if up, down := sum(&traffic.Up), sum(&traffic.Down); up != res.Up || down != res.Down {
		t.Fatalf("counted %d up, %d down: %s", up, down, desc)
	}
	if up, down := int64(len(got[1])), int64(len(got[0])); res.Up < up || res.Down < down {
		t.Fatalf("more arrived than was counted: %s", desc)
	}
}

func sum(m *tunnel.Moved) int64 { return m.Spliced.Load() + m.Copied.Load() }

// play writes what the plan says and ends the direction.
func (r *rig) play(t *testing.T, side int, c halfCloser, p plan, b []byte, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 0))
	stop := len(b)
	if p.ending == resets {
		stop = p.resetAt
	}
	for sent := 0; sent < stop; {
		n := min(1+rnd.IntN(p.piece), stop-sent)
		if _, err := c.Write(b[sent : sent+n]); err != nil {
			return err
		}
		sent += n
	}
	switch {
	case p.ending == resets && side == 0:
		r.resetClient(t)
	case p.ending == resets:
		r.resetUpstream(t)
	case side == 1 && r.relay != nil:
		r.relay.eof()
		return c.CloseWrite()
	default:
		return c.CloseWrite()
	}
	return nil
}

func slowRead(c io.Reader, most int) ([]byte, error) {
	if most == 0 {
		most = 256 << 10
	}
	var got []byte
	b := make([]byte, most)
	for {
		n, err := c.Read(b)
		got = append(got, b[:n]...)
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

func stream(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], rnd.Uint64())
	_, _ = rand.NewChaCha8(seed).Read(b) // it never fails
	return b
}
