package conformance

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// framedName is a plugin as an author makes it with the SDK, for a protocol with
// a login, frames and a word for the end of a direction. KIT_MODE names its one
// mistake.
const framedName = "framed"

// The mistakes of framedName.
const (
	// closesItsPool: Close closes the connections that it knows of, those of open
	// tunnels among them.
	closesItsPool = "closes its pool with the upstream"
	// cutIsAnEnd: an end of the connection counts as the end of the direction.
	cutIsAnEnd = "a cut session is a clean end"
	// cutIsAnEndAndSaysSo is no mistake: the plugin declares it.
	cutIsAnEndAndSaysSo = "a cut session is a clean end, as it says"
	// cutIsNoEnd: a tunnel whose connection was cut stays open. The plugin declares
	// no_reset, which does not cover that.
	cutIsNoEnd = "a cut session has no end"
	// loginOfTheFirst: all dials share a login that the first makes, under its own
	// context.
	loginOfTheFirst = "logs in under the first dial's context"
)

// loginTime is how long its far end takes over a login.
const loginTime = 50 * time.Millisecond

type framed struct {
	Address string     `tunneld:"address,required" doc:"host:port of the far end"`
	Secret  sdk.Secret `tunneld:"secret" doc:"never shown"`

	mode string

	mu    sync.Mutex
	login *login
	pool  map[net.Conn]bool
}

// login is one that is under way or is over.
type login struct {
	done chan struct{}
	err  error // once done is closed
}

func framedPlugin() sdk.Plugin {
	return sdk.Plugin{
		Name: framedName, Version: "1.0.0", Summary: "as an author's first plugin",
		NoReset: os.Getenv("KIT_MODE") == cutIsAnEndAndSaysSo || os.Getenv("KIT_MODE") == cutIsNoEnd,
		New:     func() sdk.Dialer { return &framed{mode: os.Getenv("KIT_MODE"), pool: map[net.Conn]bool{}} },
	}
}

func (f *framed) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	req.Enter(sdk.StageCredential)
	if err := f.loggedIn(ctx); err != nil {
		return nil, err
	}
	req.Enter(sdk.StageConnect)
	conn, err := f.ask(ctx, "open\n")
	if err != nil {
		return nil, err
	}
	_ = conn.SetLinger(0)
	f.mu.Lock()
	f.pool[conn] = true
	f.mu.Unlock()
	return sdk.Relay(&framedStream{TCPConn: conn, f: f, gone: make(chan struct{}), in: frames{r: conn, lenient: f.mode == cutIsAnEnd || f.mode == cutIsAnEndAndSaysSo}}, conn.LocalAddr(), conn.RemoteAddr()), nil
}

// loggedIn waits for the one login that all dials share.
func (f *framed) loggedIn(ctx context.Context) error {
	f.mu.Lock()
	l := f.login
	if l == nil {
		l = &login{done: make(chan struct{})}
		f.login = l
		own := context.WithoutCancel(ctx)
		if f.mode == loginOfTheFirst {
			own = ctx
		}
		go func() {
			own, cancel := context.WithTimeout(own, 10*time.Second)
			defer cancel()
			conn, err := f.ask(own, "login\n")
			if err == nil {
				_ = conn.Close()
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if l.err = err; err != nil {
				f.login = nil
			}
			close(l.done)
		}()
	}
	f.mu.Unlock()
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask connects, says a line and wants "ok".
func (f *framed) ask(ctx context.Context, line string) (*net.TCPConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.Address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	got := make([]byte, len("ok\n"))
	if _, err = io.WriteString(conn, line); err == nil {
		_, err = io.ReadFull(conn, got)
	}
	switch {
	case !stop():
		err = ctx.Err()
	case err == nil && string(got) != "ok\n":
		err = fmt.Errorf("the far end answers %q", got)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

func (f *framed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mode == closesItsPool {
		for conn := range f.pool {
			_ = conn.Close()
		}
	}
	return nil
}

func (f *framed) forget(conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pool, conn)
}

// frames reads pieces with two bytes of length in front of each; none is the end.
type frames struct {
	r       io.Reader
	lenient bool // an end without the word is one
	left    int
	over    bool
}

func (f *frames) Read(b []byte) (int, error) {
	var head [2]byte
	for f.left == 0 {
		if f.over {
			return 0, io.EOF
		}
		if _, err := io.ReadFull(f.r, head[:]); err != nil {
			return 0, f.cut(err)
		}
		f.left = int(binary.BigEndian.Uint16(head[:]))
		f.over = f.left == 0
	}
	n, err := f.r.Read(b[:min(len(b), f.left)])
	f.left -= n
	return n, f.cut(err)
}

func (f *frames) cut(err error) error {
	switch {
	case f.lenient && (err == io.EOF || err == io.ErrUnexpectedEOF):
		return io.EOF
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// framedStream is one tunnel.
type framedStream struct {
	*net.TCPConn
	f    *framed
	in   frames
	gone chan struct{} // closed by Close and Abort
}

func (s *framedStream) Read(b []byte) (int, error) {
	n, err := s.in.Read(b)
	if err != nil && err != io.EOF && s.f.mode == cutIsNoEnd {
		<-s.gone
	}
	return n, err
}

func (s *framedStream) Write(b []byte) (int, error) { return writeFrames(s.TCPConn, b) }

func writeFrames(w io.Writer, b []byte) (int, error) {
	for n := 0; n < len(b); {
		piece := b[n:min(len(b), n+32<<10)]
		if _, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(piece))), piece...)); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return len(b), nil
}

func (s *framedStream) CloseWrite() error {
	_, err := s.TCPConn.Write([]byte{0, 0})
	return err
}

func (s *framedStream) Close() error {
	s.f.forget(s.TCPConn)
	close(s.gone)
	_ = s.SetLinger(-1)
	return s.TCPConn.Close()
}

func (s *framedStream) Abort(string) {
	s.f.forget(s.TCPConn)
	close(s.gone)
	_ = s.TCPConn.Close()
}

// framedFarEnd is the server: "framed FROM TO" leads what is opened at FROM to TO.
func framedFarEnd(args []string) int {
	return serveFarEnd(args[0], func(in *net.TCPConn) { serveFramed(in, args[1]) })
}

func serveFramed(in *net.TCPConn, to string) {
	r := bufio.NewReader(in)
	if line, _ := r.ReadString('\n'); line == "login\n" {
		time.Sleep(loginTime)
		_, _ = io.WriteString(in, "ok\n")
		return
	}
	conn, err := net.Dial("tcp", to)
	if err != nil {
		_, _ = io.WriteString(in, "no\n")
		return
	}
	out := conn.(*net.TCPConn)
	defer out.Close()
	_, _ = io.WriteString(in, "ok\n")
	var both sync.WaitGroup
	cut := func(err error) {
		if err != nil {
			_, _ = in.SetLinger(0), out.SetLinger(0)
			_, _ = in.Close(), out.Close()
		}
	}
	both.Go(func() {
		_, err := io.Copy(struct{ io.Writer }{out}, &frames{r: r})
		if err == nil {
			err = out.CloseWrite()
		}
		cut(err)
	})
	both.Go(func() {
		var err error
		for b, n := make([]byte, 32<<10), 0; err == nil; {
			n, err = out.Read(b)
			if _, writeErr := writeFrames(in, b[:n]); writeErr != nil {
				err = writeErr
			}
		}
		if err == io.EOF {
			_, err = in.Write([]byte{0, 0})
		}
		cut(err)
	})
	both.Wait()
}

// framedOptions runs the plugin with a far end of its own.
func framedOptions(t *testing.T, mode string) Options {
	t.Helper()
	far, target := freeTarget(), freeTarget()
	o := options(t, framedName, mode, fmt.Sprintf("address = %q\nsecret = %q", far, password))
	o.Target, o.NoRefused = target, true
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.FarEnd = []string{exe, "framed", far, target}
	return o
}

// framedMistakes are the modes of framedName, each with the check that finds it.
var framedMistakes = []struct{ mode, check string }{
	{closesItsPool, "release"},
	{cutIsAnEnd, "far-end-death"},
	{loginOfTheFirst, "first-dials"},
}

// TestAuthorsMistakes: each loses data, and is found by its own check and by no
// other. Without one nothing is found.
func TestAuthorsMistakes(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		results(t, run1(t, framedOptions(t, "")), map[string]Result{"refused": Skipped, "far-end-death": Pass})
	})
	for _, tc := range framedMistakes {
		t.Run(tc.mode, func(t *testing.T) {
			t.Parallel()
			r := run1(t, framedOptions(t, tc.mode))
			want := map[string]Result{"refused": Skipped, "far-end-death": Pass}
			want[tc.check] = Fail
			results(t, r, want)
			if r.OK || !slices.Equal(r.Failed(), []string{tc.check}) {
				t.Errorf("failed: %v", r.Failed())
			}
		})
	}
}

// TestNoResetIsNoExcuse for a client that hears of no end at all.
func TestNoResetIsNoExcuse(t *testing.T) {
	t.Parallel()
	r := run1(t, framedOptions(t, cutIsNoEnd))
	results(t, r, map[string]Result{"refused": Skipped, "target-reset": Fail, "far-end-death": Fail})
}

// TestNoReset: a protocol with one kind of end says so.
func TestNoReset(t *testing.T) {
	t.Parallel()
	r := run1(t, framedOptions(t, cutIsAnEndAndSaysSo))
	results(t, r, map[string]Result{"refused": Skipped, "far-end-death": Declared})
	if !r.OK || !slices.Equal(r.Plugin.Capabilities, []string{pluginwire.NoReset}) {
		t.Errorf("%+v", r.Plugin)
	}
}
