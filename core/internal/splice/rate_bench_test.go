package splice

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkRate is how near tunnels come to what limits them, measured where the bytes
// arrive: of_rate is 1 where it is met. least is what the slowest of several tunnels moves
// of an even share.
//
//	go test -run '^$' -bench Rate -benchtime 5x ./core/internal/splice
func BenchmarkRate(b *testing.B) {
	for _, mib := range []int64{1, 100} {
		for _, bench := range []struct {
			name    string
			limit   Bandwidth
			tunnels int
		}{
			{"each", Bandwidth{Down: mib << 20}, 1},
			{"total", Bandwidth{TotalDown: mib << 20}, 1},
			{"total of 20", Bandwidth{TotalDown: mib << 20}, 20},
		} {
			for _, pump := range []string{"kernel", "portable"} {
				b.Run(fmt.Sprintf("%d MiB per s/%s/%s", mib, bench.name, pump), func(b *testing.B) {
					measureRate(b, bench.limit, bench.tunnels, pump == "portable", float64(mib<<20))
				})
			}
		}
	}
}

func measureRate(b *testing.B, limit Bandwidth, tunnels int, portable bool, rate float64) {
	p, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	start := p.Start
	if portable {
		start = p.startPortable
	}
	var block Rate
	p.Limit(map[*Rate]Bandwidth{&block: limit})
	rates := NewRates(&block)
	moved := make([]atomic.Int64, tunnels)
	var ends sync.WaitGroup
	for i := range moved {
		r := newRig(b, start, shape{rates: rates})
		ends.Go(func() { _, _ = io.Copy(r.upstream, zeros{}) })
		ends.Go(func() {
			buf := make([]byte, 256<<10)
			for {
				n, err := r.client.Read(buf)
				moved[i].Add(int64(n))
				if err != nil {
					return
				}
			}
		})
		defer r.upstream.Close()
	}
	all := func() (sum, least int64) {
		for i := range moved {
			n := moved[i].Load()
			sum += n
			if i == 0 || n < least {
				least = n
			}
		}
		return sum, least
	}
	time.Sleep(time.Second / 2)
	from, leastFrom := all()
	began := time.Now()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	to, leastTo := all()
	took := time.Since(began).Seconds()
	b.ReportMetric(float64(to-from)/took/rate, "of_rate")
	b.ReportMetric(float64(leastTo-leastFrom)/(float64(to-from)/float64(tunnels)), "least")
	b.ReportMetric(0, "ns/op")
	p.Kill()
	_ = p.Wait(b.Context())
	ends.Wait()
}
