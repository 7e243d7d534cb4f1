package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// limited is a bandwidth, of which connections want more.
type limited struct {
	rate  int64 // bytes a second
	total bool  // of all connections together
	n     int   // connections
	down  bool
	tls   bool
}

func (l limited) name() string {
	direction, of, over := "up", fmt.Sprintf("%d connection", l.n), ""
	if l.down {
		direction = "down"
	}
	if l.total {
		of += "s in sum"
	}
	if l.tls {
		over = ", TLS"
	}
	return fmt.Sprintf("%d MiB/s %s, %s%s", l.rate>>20, direction, of, over)
}

func limitedCases() (all []limited) {
	for _, rate := range []int64{1 << 20, 100 << 20} {
		for _, down := range []bool{false, true} {
			all = append(all, limited{rate: rate, n: 1, down: down}, limited{rate: rate, total: true, n: 20, down: down}, limited{rate: rate, n: 1, down: down, tls: true})
		}
	}
	return all
}

// measureLimits measures how near tunneld comes to the bandwidths that it is told, where the
// bytes arrive, and prints a table.
func measureLimits(ctx context.Context, s settings) error {
	return withFarEnds(ctx, func(dir string, far farEnds) (err error) {
		if s.tunneld == "" {
			if s.tunneld, err = build(ctx, "", dir); err != nil {
				return err
			}
		}
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
		fmt.Fprintf(w, "| of the limit\t| median\t| least\t| most\t| slowest connection, of an even share\t|\n|---\t|---\t|---\t|---\t|---\t|\n")
		for i, l := range limitedCases() {
			fmt.Fprintf(os.Stderr, "%s\n", l.name())
			met, slowest, err := l.measure(ctx, s, far, fmt.Sprintf("%s/limit-%d", dir, i))
			if err != nil {
				return fmt.Errorf("%s: %w", l.name(), err)
			}
			middle, _ := median(met)
			share, _ := median(slowest)
			fmt.Fprintf(w, "| %s\t| %.3f\t| %.3f\t| %.3f\t| %.3f\t|\n", l.name(), middle, slices.Min(met), slices.Max(met), share)
		}
		return w.Flush()
	})
}

// measure returns, for each round, how much of the limit came, and how much of its share the
// slowest connection had.
func (l limited) measure(ctx context.Context, s settings, far farEnds, dir string) (met, slowest []float64, err error) {
	var counts sync.Map // of bytes that came, by connection
	sink := func(c net.Conn) {
		var n atomic.Int64
		counts.Store(&n, nil)
		defer counts.Delete(&n)
		buf := make([]byte, 256<<10)
		for {
			got, err := c.Read(buf)
			if n.Add(int64(got)); err != nil {
				return
			}
		}
	}
	source := func(c net.Conn) { _, _ = io.Copy(c, zeros{}) } // until it is closed
	client, server := source, sink
	if l.down {
		client, server = sink, source
	}
	target, err := listen(func(c *net.TCPConn) { server(c) })
	if err != nil {
		return nil, nil, err
	}
	r, err := l.start(ctx, s, far, target, dir)
	if err != nil {
		return nil, nil, err
	}
	defer r.process.stop()
	f := loadFlags{address: r.echo}
	if l.tls {
		if f.tls, err = f.clientTLS(far.tls.authority); err != nil {
			return nil, nil, err
		}
	}
	var clients sync.WaitGroup
	defer clients.Wait()
	for range l.n {
		c, err := f.dial()
		if err != nil {
			return nil, nil, err
		}
		defer c.Close()
		clients.Go(func() { client(c) })
	}
	time.Sleep(s.length)
	for range s.rounds {
		before, began := read(&counts), time.Now()
		time.Sleep(s.length)
		after, took := read(&counts), time.Since(began).Seconds()
		if len(after) != l.n || len(before) != l.n {
			return nil, nil, fmt.Errorf("%d connections, want %d", len(after), l.n)
		}
		sum, least := int64(0), int64(-1)
		for c, n := range after {
			n -= before[c]
			if sum += n; least < 0 || n < least {
				least = n
			}
		}
		met = append(met, float64(sum)/took/float64(l.rate))
		slowest = append(slowest, float64(least)*float64(l.n)/float64(sum))
	}
	return met, slowest, nil
}

func read(counts *sync.Map) map[any]int64 {
	now := map[any]int64{}
	counts.Range(func(c, _ any) bool {
		now[c] = c.(*atomic.Int64).Load()
		return true
	})
	return now
}

// start starts tunneld with a listener that has the limit.
func (l limited) start(ctx context.Context, s settings, far farEnds, target, dir string) (row, error) {
	address, err := free.Address()
	if err != nil {
		return row{}, err
	}
	attribute, more := "up", ""
	if l.down {
		attribute = "down"
	}
	if l.total {
		attribute = "total_" + attribute
	}
	if l.tls {
		more = fmt.Sprintf(" tls {\n  cert_file = %q\n  key_file = %q\n }\n", far.tls.cert, far.tls.key)
	}
	text := fmt.Sprintf("upstream \"direct\" \"far\" {}\nlistener \"tcp\" \"a\" {\n address = %q\n target = %q\n bandwidth {\n  %s = %d\n }\n%s}\n", address, target, attribute, l.rate, more)
	return row{services: services{address, address, address}}.startTunneld(ctx, s, dir, text, "direct.far")
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
