package tlsconf

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
)

// bothWays are how a server reads: as it comes, or in bulk and without waiting.
func bothWays(t *testing.T, try func(t *testing.T, from func(*Conn) io.Reader)) {
	t.Run("read", func(t *testing.T) { try(t, func(c *Conn) io.Reader { return c }) })
	t.Run("patiently", func(t *testing.T) {
		try(t, func(c *Conn) io.Reader { c.Bulk(); return readPatiently{t, c} })
	})
}

// spoken is a server whose client writes records of any kind.
func spoken(t *testing.T) (*nettest.Records, *tls.Conn, *Conn) {
	t.Helper()
	near, far := nettest.Pair(t)
	_ = near.SetDeadline(time.Now().Add(30 * time.Second))
	_ = far.SetDeadline(time.Now().Add(30 * time.Second))
	server := ServerConn(far, nil, newAuthority(t).serving(t), Ends{Strict: true})
	done := make(chan error, 1)
	go func() { done <- server.HandshakeWithin(unmetered) }()
	records, client := nettest.HandshakeRecords(t, near, &tls.Config{InsecureSkipVerify: true})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return records, client, server
}

// TestConnBoundsWhatSaysNothing: a message of which the end does not come, and records
// without data, end the connection with an alert before they are much.
func TestConnBoundsWhatSaysNothing(t *testing.T) {
	const certificate = "\x0b\x03\xff\xff" // of 256 KiB
	bothWays(t, func(t *testing.T, from func(*Conn) io.Reader) {
		for name, tt := range map[string]struct {
			kind    byte
			content string
			padding int
		}{
			"half a message in small parts": {nettest.RecordHandshake, strings.Repeat("\x00", 100), 0},
			"half a message in large parts": {nettest.RecordHandshake, strings.Repeat("\x00", maxPlaintext), 0},
			"empty and padded":              {nettest.RecordData, "", 4 << 10},
		} {
			t.Run(name, func(t *testing.T) {
				records, client, server := spoken(t)
				var wg sync.WaitGroup
				defer wg.Wait()
				sent := 0
				wg.Go(func() {
					if tt.kind == nettest.RecordHandshake {
						_ = records.Write(tt.kind, certificate)
					}
					for sent < 1<<20 {
						n, err := client.NetConn().Write(records.Seal(tt.kind, tt.content, tt.padding))
						if sent += n; err != nil {
							break
						}
					}
				})
				n, err := from(server).Read(make([]byte, 1))
				if n != 0 || !errors.Is(err, errQuiet) {
					t.Fatalf("read %d, %v", n, err)
				}
				if _, again := server.Read(make([]byte, 1)); !errors.Is(again, errQuiet) {
					t.Errorf("another read: %v", again)
				}
				if got := server.floor.quiet; got > maxQuiet+maxContent+2*recordHeader {
					t.Errorf("crypto/tls was given %d bytes", got)
				}
				if _, err := client.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "record overflow") {
					t.Errorf("the client is told %v", err)
				}
				_ = server.Close()
			})
		}
	})
}

// TestConnTakesWhatIsOrdinary: no number of keys that are replaced, of empty records and of
// bytes ends a connection whose client says something now and then.
func TestConnTakesWhatIsOrdinary(t *testing.T) {
	bothWays(t, func(t *testing.T, from func(*Conn) io.Reader) {
		records, client, server := spoken(t)
		text := strings.Repeat("t", maxPlaintext)
		const rounds, few = 200, 7 // crypto/tls takes 16 in a row that say nothing
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for i := range rounds {
				for range few {
					if err := errors.Join(records.UpdateKeys(false), records.Write(nettest.RecordData, "")); err != nil {
						t.Error(err)
						return
					}
				}
				if err := errors.Join(records.UpdateKeys(i%20 == 0), records.Write(nettest.RecordData, text)); err != nil {
					t.Error(err)
					return
				}
			}
		})
		r := from(server)
		for range rounds {
			got := make([]byte, len(text))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != text {
				t.Fatal(err)
			}
		}
		send(t, server, "answer") // under the newest keys
		got := make([]byte, len("answer"))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "answer" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// bytewise writes byte by byte.
type bytewise struct{ net.Conn }

func (c bytewise) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// holding keeps all writes but the first until it is released, and writes them at once.
type holding struct {
	net.Conn
	begun bool
	held  []byte
}

func (c *holding) Write(b []byte) (int, error) {
	if !c.begun {
		c.begun = true
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

func (c *holding) release() error {
	_, err := c.Conn.Write(c.held)
	return err
}

// TestConnBeginsInOnePiece: what comes with the last record of the handshake is read, in
// either way, and waits without a buffer.
func TestConnBeginsInOnePiece(t *testing.T) {
	bothWays(t, func(t *testing.T, from func(*Conn) io.Reader) {
		near, far := nettest.Pair(t)
		held := &holding{Conn: near}
		client := tls.Client(held, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			if _, err := io.WriteString(client, "at once"); err != nil {
				t.Error(err)
			}
			if err := held.release(); err != nil {
				t.Error(err)
			}
		})
		_ = far.SetDeadline(time.Now().Add(30 * time.Second))
		server := ServerConn(far, nil, newAuthority(t).serving(t), Ends{Strict: true})
		if err := server.HandshakeWithin(unmetered); err != nil {
			t.Fatal(err)
		}
		r := from(server)
		got := make([]byte, len("at once"))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != "at once" {
			t.Errorf("%q, %v", got, err)
		}
		if _, ok := r.(readPatiently); ok {
			if _, err := server.ReadNow(got); !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("then %v", err)
			}
		}
		_ = server.Close()
	})
}

// TestConnMeters what a handshake reads beyond what was read ahead, and each of its records
// before crypto/tls has any of it; nothing later.
func TestConnMeters(t *testing.T) {
	config := newAuthority(t).serving(t)
	errNo := errors.New("no")
	for name, tt := range map[string]struct {
		record, bytes error
		alert         bool
	}{
		"all is taken":       {},
		"a record is not":    {record: errNo, alert: true},
		"what is read isn't": {bytes: errNo},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := nettest.Pair(t)
			done := make(chan error, 1)
			client := tls.Client(bytewise{near}, &tls.Config{InsecureSkipVerify: true})
			go func() {
				_, err := io.WriteString(client, "more")
				done <- err
			}()
			ahead := make([]byte, 10)
			if _, err := io.ReadFull(far, ahead); err != nil {
				t.Fatal(err)
			}
			server, records, read := ServerConn(far, ahead, config, Ends{}), []int{}, 0
			err := server.HandshakeWithin(Meter{
				Record: func(size int) error {
					if records = append(records, size); len(records) > 1 { // the first is the ClientHello
						return tt.record
					}
					return nil
				},
				Bytes: func(n int) error { read += n; return tt.bytes },
			})
			if want := cmp.Or(tt.record, tt.bytes); err != want || read == 0 {
				t.Fatalf("%v, %d bytes were read", err, read)
			}
			if err != nil {
				_ = far.CloseWrite()
				<-done
				_, err := client.Read(ahead)
				if told := strings.Contains(err.Error(), "record overflow"); told != tt.alert {
					t.Errorf("the client reads %v", err)
				}
				return
			}
			sum := -len(ahead)
			for _, size := range records {
				sum += size
			}
			if n, err := server.Read(ahead); string(ahead[:n]) != "more" || err != nil {
				t.Errorf("%q, %v", ahead[:n], err)
			}
			if sum > read {
				t.Errorf("%d bytes of records %v, %d were read", sum, records, read)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
