package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/socks5"
)

// tokenLife is how long the token of a direct sapsocks client is good.
const tokenLife = time.Hour

// loadResult is what a load prints, as one line of JSON.
type loadResult struct {
	PerSecond float64 // bytes, round trips or tunnels
	P50, P99  float64 // microseconds, of round trips
	Total     int64   // of the same as PerSecond, with the warm-up
	Failed    int64   // connections that broke, or tunnels that could not be made
	Why       string  // the first of them
}

// loadFlags say what a load does.
type loadFlags struct {
	kind    string
	address string
	n       int
	length  time.Duration
	target  string // through a proxy at address
	token   string // of a sapsocks proxy
	user    string // of a SOCKS5 proxy
	tls     *tls.Config
	resume  bool // every session, and none is made anew
}

func runLoad(args []string) error {
	f, err := parseLoad(args)
	if err != nil {
		return err
	}
	if f.kind == "hold" {
		return hold(f)
	}
	r, err := f.run()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func parseLoad(args []string) (f loadFlags, err error) {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.StringVar(&f.kind, "kind", "", "up, down, rr, crr or hold")
	fs.StringVar(&f.address, "address", "", "where to connect")
	fs.IntVar(&f.n, "n", 1, "connections at once")
	fs.DurationVar(&f.length, "length", time.Second, "for how long")
	fs.StringVar(&f.target, "target", "", "ask a proxy for this")
	fs.StringVar(&f.token, "token", "", "of sapsocks, with this token")
	fs.StringVar(&f.user, "user", "", "of SOCKS5, as this user of the benchmark, or as anonymous")
	authority := fs.String("authority", "", "speak TLS, and trust the certificates of this file")
	fs.BoolVar(&f.resume, "resume", false, "resume a TLS session with each connection")
	err = fs.Parse(args)
	if err == nil && *authority != "" {
		f.tls, err = f.clientTLS(*authority)
	}
	return f, err
}

func (f loadFlags) run() (loadResult, error) {
	switch f.kind {
	case "up", "down":
		return bulk(f)
	case "rr":
		return roundTrips(f)
	case "crr":
		return newTunnels(f)
	}
	return loadResult{}, fmt.Errorf("unknown load %q", f.kind)
}

func (f loadFlags) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", f.address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	conn := net.Conn(c)
	if f.tls != nil {
		conn, err = f.secure(c)
	}
	if err == nil && f.target != "" {
		err = f.logIn(conn)
		if err == nil {
			err = askProxy(conn, f.target)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return conn, nil
}

// sapMethod is the method of sapsocks.
const sapMethod socks5.Method = 0x80

// logIn does the first part of a handshake of SOCKS5: of sapsocks as its plugin does, of
// any other with a password or without.
func (f loadFlags) logIn(c net.Conn) error {
	method, login := sapMethod, []byte(nil)
	var err error
	switch {
	case f.user == anonymous:
		method = socks5.MethodNone
	case f.user != "":
		method = socks5.MethodUserPass
		login, err = socks5.AppendUserPass(nil, socks5.UserPass{Username: f.user, Password: benchPassword})
	default:
		n := len(f.token)
		login = append(append([]byte{1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, f.token...), 0)
	}
	if err != nil {
		return err
	}
	b, err := socks5.AppendGreeting(nil, method)
	if err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	if got, err := socks5.ReadMethod(c); err != nil || got != method {
		return fmt.Errorf("method %d, %w", got, err)
	}
	if login == nil {
		return nil
	}
	if _, err := c.Write(login); err != nil {
		return err
	}
	if status, err := socks5.ReadUserPassStatus(c); err != nil || status != 0 {
		return fmt.Errorf("authentication status %d, %w", status, err)
	}
	return nil
}

// askProxy does the second part.
func askProxy(c net.Conn, target string) error {
	host, port, err := splitTarget(target)
	if err != nil {
		return err
	}
	b, err := socks5.AppendRequest(nil, socks5.Request{Command: socks5.Connect, Address: socks5.Address{Host: host, Port: port}})
	if err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	reply, err := socks5.ReadReply(c)
	if err == nil && reply.Code != socks5.Succeeded {
		err = errors.New(reply.Code.Text())
	}
	return err
}

func (f loadFlags) warmUp() { time.Sleep(f.length / 5) }

// measure returns what is added to count in the length, or in a few of them: a busy
// machine may do nothing for a while.
func (f loadFlags) measure(count *atomic.Int64) (n int64, took time.Duration) {
	from, start := count.Load(), time.Now()
	for i := 0; i < 20 && n == 0; i++ {
		time.Sleep(f.length)
		n = count.Load() - from
	}
	return n, time.Since(start)
}

// bulk moves bytes over n connections.
func bulk(f loadFlags) (loadResult, error) {
	var moved, failed atomic.Int64
	var stop atomic.Bool
	conns := make([]net.Conn, f.n)
	var wg sync.WaitGroup
	for i := range conns {
		c, err := f.dial()
		if err != nil {
			return loadResult{}, err
		}
		conns[i] = c
		wg.Go(func() {
			buf := make([]byte, 256<<10)
			for {
				var n int
				var err error
				if f.kind == "up" {
					n, err = c.Write(buf)
				} else {
					n, err = c.Read(buf)
				}
				moved.Add(int64(n))
				if err != nil {
					if !stop.Load() {
						failed.Add(1)
					}
					return
				}
			}
		})
	}
	f.warmUp()
	bytes, took := f.measure(&moved)
	stop.Store(true)
	for _, c := range conns {
		c.Close()
	}
	wg.Wait()
	return loadResult{PerSecond: float64(bytes) / took.Seconds(), Total: moved.Load(), Failed: failed.Load()}, nil
}

// roundTrips sends 64 bytes over n connections and waits for them each time.
func roundTrips(f loadFlags) (loadResult, error) {
	var stop, measuring atomic.Bool
	var total, failed atomic.Int64
	times := make([][]time.Duration, f.n)
	var wg sync.WaitGroup
	for i := range times {
		c, err := f.dial()
		if err != nil {
			return loadResult{}, err
		}
		wg.Go(func() {
			defer c.Close()
			buf := make([]byte, 64)
			for !stop.Load() {
				begin := time.Now()
				if err := roundTrip(c, buf); err != nil {
					failed.Add(1)
					return
				}
				total.Add(1)
				if measuring.Load() {
					times[i] = append(times[i], time.Since(begin))
				}
			}
		})
	}
	f.warmUp()
	measuring.Store(true)
	_, took := f.measure(&total)
	measuring.Store(false)
	stop.Store(true)
	wg.Wait()
	all := slices.Concat(times...)
	if len(all) == 0 {
		return loadResult{}, errors.New("no round trip was completed")
	}
	slices.Sort(all)
	us := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))]) / float64(time.Microsecond) }
	return loadResult{PerSecond: float64(len(all)) / took.Seconds(), P50: us(0.5), P99: us(0.99), Total: total.Load(), Failed: failed.Load()}, nil
}

// roundTrip sends b and reads as many bytes back.
func roundTrip(c net.Conn, b []byte) error {
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

// newTunnels makes tunnels, n at once: connect, a byte there and back, close.
func newTunnels(f loadFlags) (loadResult, error) {
	if err := f.takeTicket(); err != nil {
		return loadResult{}, err
	}
	var made, failed atomic.Int64
	var why atomic.Value
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range f.n {
		wg.Go(func() {
			for !stop.Load() {
				if err := oneTunnel(f); err != nil {
					failed.Add(1)
					why.CompareAndSwap(nil, err.Error())
					continue
				}
				made.Add(1)
			}
		})
	}
	f.warmUp()
	n, took := f.measure(&made)
	stop.Store(true)
	wg.Wait()
	first, _ := why.Load().(string)
	return loadResult{PerSecond: float64(n) / took.Seconds(), Total: made.Load(), Failed: failed.Load(), Why: first}, nil
}

func oneTunnel(f loadFlags) error {
	c, err := f.dial()
	if err != nil {
		return err
	}
	// A reset instead of a close keeps the loopback's ports from running out.
	s := socket(c)
	defer s.Close()
	if err := s.SetLinger(0); err != nil {
		return err
	}
	return roundTrip(c, []byte{1})
}

// hold opens and closes connections: it reads how many, a number a line ("+4000",
// "-5000"), and answers each line once it is done.
func hold(f loadFlags) error {
	var held []net.Conn
	for {
		var n int
		if _, err := fmt.Scanf("%d\n", &n); err != nil {
			return nil // the input has ended
		}
		for ; n > 0; n-- {
			c, err := f.dial()
			if err != nil {
				return err
			}
			// One byte there and back: the tunnel is up.
			if err := roundTrip(c, []byte{1}); err != nil {
				return err
			}
			held = append(held, c)
		}
		for ; n < 0; n++ {
			last := len(held) - 1
			if err := held[last].Close(); err != nil {
				return err
			}
			held = held[:last]
		}
		if _, err := fmt.Println(len(held)); err != nil {
			return err
		}
	}
}
