package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"

	"github.com/tunneld/tunneld/core/diag"
	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/logtest"
)

// hung is a file system that does not answer until it is mended.
type hung struct{ asked, mended chan struct{} }

func newHung(t *testing.T) hung {
	h := hung{make(chan struct{}), make(chan struct{})}
	t.Cleanup(func() { close(h.mended) })
	return h
}

func (h hung) read() {
	close(h.asked)
	<-h.mended
}

// TestReading: what is held up is left once ctx ends.
func TestReading(t *testing.T) {
	if v, err := reading(t.Context(), func() int { return 7 }); v != 7 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	h := newHung(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-h.asked
		cancel(errStopping)
	}()
	if v, err := reading(ctx, func() int { h.read(); return 7 }); v != 0 || !errors.Is(err, errStopping) {
		t.Errorf("%d, %v", v, err)
	}
}

// TestStopLeavesAReloadThatHangs in a file system, and so does the end of a start.
func TestStopLeavesAReloadThatHangs(t *testing.T) {
	h := newHung(t)
	hangs := func(path string) (*config.Config, diag.Diagnostics) {
		h.read()
		return config.Parse(path)
	}
	r := start(t, nil, func(string) string { return watched("", "one") })
	r.opts.parse = hangs
	out := make(chan status.Reload, 1)
	go func() { out <- r.Reload(t.Context()) }()
	<-h.asked
	if err := r.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if o := <-out; o.Error != errStopping.Error() {
		t.Errorf("%+v", o)
	}

	h = newHung(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-h.asked
		cancel()
	}()
	if _, _, err := Start(ctx, Options{ConfigPath: r.path, Log: slog.New(slog.DiscardHandler), parse: hangs}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// hangingLog does not return from a line with the message.
type hangingLog struct {
	slog.Handler
	message string
	hung
}

func (l hangingLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == l.message {
		l.read()
	}
	return l.Handler.Handle(ctx, r)
}

// TestStopDrainsWhateverHangs: what follows files is waited for last, and not for long.
func TestStopDrainsWhateverHangs(t *testing.T) {
	target, ca := secured(t, func(c *tls.Conn) {
		_, _ = io.Copy(c, c) // the client sees what is missing
		_ = c.Close()
	})
	h := newHung(t)
	r := &rig{log: logtest.New(patience), path: t.TempDir() + "/tunneld.hcl"}
	r.write(t, fmt.Sprintf("upstream \"direct\" \"d\" {\n tls {\n ca_file = %q\n }\n}\nlistener \"tcp\" \"l\" {\n address = \"127.0.0.1:0\"\n target = %q\n}\nroute \"r\" {\n upstreams = [upstream.direct.d]\n}\n", ca, target))
	var err error
	r.Engine, _, err = Start(t.Context(), Options{ConfigPath: r.path, Log: slog.New(hangingLog{slog.NewJSONHandler(r.log, nil), "the files of a tls block have changed, and are in use", h})})
	if err != nil {
		t.Fatal(err)
	}
	at, _ := r.at(t, "tcp.l")
	c, err := net.DialTimeout("tcp", at[0], patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echoed(t, c)
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	put(t, ca, string(text)+"\n")
	<-h.asked
	stopped := make(chan error, 1)
	go func() { stopped <- r.Stop(t.Context()) }()
	r.log.Await(t, 1, "msg", "stopping")
	echoed(t, c)
	c.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
