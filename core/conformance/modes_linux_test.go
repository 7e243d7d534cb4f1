package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunneld/tunneld/internal/pluginwire"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// mischief is what a mode does before the handshake.
func (r *raw) mischief() {
	switch r.mode {
	case "prints first":
		fmt.Println("hello, I am a plugin")
	case "exits":
		fmt.Fprintln(os.Stderr, "cannot open the frobnicator")
		os.Exit(7)
	case "exits without a word":
		os.Exit(8)
	case "is deaf to SIGTERM":
		signal.Ignore(syscall.SIGTERM)
	case "leaves a child":
		r.leave(&syscall.SysProcAttr{})
	case "leaves an escaped child":
		r.leave(&syscall.SysProcAttr{Setsid: true})
	}
}

// leave starts a process that outlives this one.
func (r *raw) leave(attr *syscall.SysProcAttr) {
	cmd := exec.Command("/proc/self/exe", "plugin", "serve", "sleeper")
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// sleep is that process.
func sleep() int {
	time.Sleep(time.Minute)
	return 0
}

// validating is what a mode does besides in the validation. It is called with mu
// held.
func (r *raw) validating(c rawConfig, ds *[]*pluginv1.Diagnostic) {
	warn := func(text string) {
		*ds = append(*ds, &pluginv1.Diagnostic{Severity: pluginv1.Severity_SEVERITY_WARNING, Summary: text})
	}
	switch r.mode {
	case "changes its mind":
		r.asked++
		warn(fmt.Sprint("asked ", r.asked, " times"))
	case "dials in the validation":
		if conn, err := net.Dial("tcp", c.probe); err == nil {
			_ = conn.Close()
		}
	case "opens a file in the validation":
		if f, err := os.Open(os.DevNull); err == nil {
			r.kept = append(r.kept, f)
		}
	case "tells its password in a diagnostic":
		warn("the password " + c.secret + " is short")
	}
}

// insteadOfDial is what a mode does before it connects. An answer or an error
// ends the dial.
func (r *raw) insteadOfDial(ctx context.Context, req *pluginv1.DialRequest, c rawConfig) (*pluginv1.DialResponse, error) {
	switch r.mode {
	case "cannot dial":
		return nil, status.Error(codes.Internal, "out of luck")
	case "hands a pipe over":
		_, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer w.Close()
		_ = r.channel.Send(pluginwire.Record{Kind: pluginwire.Handoff, Token: req.GetToken(), Path: pluginwire.PathDirect}, w)
		return directly(req), nil
	case "hands nothing over":
		return directly(req), nil
	case "logs its password in base64":
		fmt.Fprintln(os.Stderr, "Authorization: Basic", base64.StdEncoding.EncodeToString([]byte("alice:"+c.secret)))
	case "prints its password in an error":
		if conn, err := r.connect(ctx, req); err == nil {
			return nil, conn.Close()
		}
		return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Error{Error: &pluginv1.DialError{
			Stage: pluginv1.Stage_STAGE_CONNECT, Reason: pluginv1.Reason_REASON_REFUSED, Message: "nobody is there", Hint: "is the password " + c.secret + " right?",
		}}}, nil
	case "does not wait for the target", "says what it cannot":
		return r.promise(ctx, req)
	case "32 at most":
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	case "sends a bad record":
		_ = r.channel.Send(pluginwire.Record{Kind: 9, Token: req.GetToken()}, nil)
	}
	return nil, nil
}

func directly(req *pluginv1.DialRequest) *pluginv1.DialResponse {
	return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Handoff{Handoff: &pluginv1.Handoff{
		Token: req.GetToken(), Path: pluginv1.DataPath_DATA_PATH_DIRECT,
	}}}
}

// promise answers at once where the target refuses, and ends the tunnel then.
func (r *raw) promise(ctx context.Context, req *pluginv1.DialRequest) (*pluginv1.DialResponse, error) {
	conn, err := r.connect(ctx, req)
	if err == nil || ctx.Err() != nil {
		if err == nil {
			_ = conn.Close()
		}
		return nil, nil
	}
	near, theirs, err := pluginwire.RelayPair()
	if err != nil {
		return nil, err
	}
	_ = r.channel.Send(pluginwire.Record{Kind: pluginwire.Handoff, Token: req.GetToken(), Path: pluginwire.PathRelay}, theirs)
	_ = r.channel.Send(pluginwire.Record{Kind: pluginwire.End, Token: req.GetToken(), Status: pluginwire.StatusError, Text: "refused"}, nil)
	_, _ = theirs.Close(), near.Close()
	return &pluginv1.DialResponse{Result: &pluginv1.DialResponse_Handoff{Handoff: &pluginv1.Handoff{
		Token: req.GetToken(), Path: pluginv1.DataPath_DATA_PATH_RELAY,
	}}}, nil
}

// connected is what a mode does with a fresh connection.
func (r *raw) connected(_ *pluginv1.DialRequest, far *net.TCPConn) *net.TCPConn {
	if r.mode == "loses what comes first" || r.mode == "says what it cannot" {
		_ = far.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, _ = far.Read(make([]byte, 100))
		_ = far.SetReadDeadline(time.Time{})
	}
	return far
}

// reader is what a mode makes of the far end's bytes.
func (r *raw) reader(far *net.TCPConn) io.Reader {
	switch r.mode {
	case "corrupts a sequence":
		return &corrupting{far: far}
	case "loses a byte after a megabyte":
		return io.MultiReader(io.LimitReader(far, 1<<20), &losing{far: far})
	}
	return struct{ io.Reader }{far}
}

// corrupting mistakes a sequence for its own.
type corrupting struct{ far io.Reader }

func (c *corrupting) Read(b []byte) (int, error) {
	n, err := c.far.Read(b)
	copy(b, bytes.ReplaceAll(b[:n], []byte{0x10, 0x11, 0x12, 0x13, 0x14}, []byte{0x10, 0x11, 0x20, 0x13, 0x14}))
	return n, err
}

// losing drops the first byte.
type losing struct {
	far  io.Reader
	lost bool
}

func (l *losing) Read(b []byte) (int, error) {
	if !l.lost {
		l.lost = true
		if _, err := io.ReadFull(l.far, make([]byte, 1)); err != nil {
			return 0, err
		}
	}
	return l.far.Read(b)
}
