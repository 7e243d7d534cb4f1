// Package cmdtest is for tests: it runs the command that emulates a far end, and talks to
// what that serves byte by byte.
package cmdtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// Patience bounds what a test waits for.
const Patience = 30 * time.Second

// silence is how long nothing has to come for an answer to be none.
const silence = 50 * time.Millisecond

// Emulator is a command that runs.
type Emulator struct {
	// Out is what it wrote to standard output.
	Out    string
	log    bytes.Buffer
	cancel context.CancelFunc
	done   chan error
}

// Start runs a command until the test ends, and returns once it is ready.
func Start(t testing.TB, cmd *cobra.Command, args ...string) *Emulator {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e := &Emulator{cancel: cancel, done: make(chan error, 1)}
	out, w := io.Pipe()
	go func() {
		err := run(ctx, cmd, w, &e.log, args)
		_ = w.CloseWithError(errors.Join(errors.New("the command ended"), err))
		e.done <- err
		close(e.done)
	}()
	t.Cleanup(func() { e.Stop(t) })
	b := make([]byte, 1<<20) // it is one write
	n, err := out.Read(b)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	e.Out = string(b[:n])
	return e
}

func run(ctx context.Context, cmd *cobra.Command, out, log io.Writer, args []string) error {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(""))
	cmd.SetOut(out)
	cmd.SetErr(log)
	return cmd.ExecuteContext(ctx)
}

// Stop ends the command and returns what it logged. It may be called again.
func (e *Emulator) Stop(t testing.TB) string {
	t.Helper()
	e.cancel()
	if err := <-e.done; err != nil {
		t.Errorf("the command ended with %v", err)
	}
	return e.log.String()
}

// Fails runs a command that has to end by itself, with an error that has this text.
func Fails(t testing.TB, cmd *cobra.Command, want string, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	err := run(ctx, cmd, io.Discard, io.Discard, args)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%q: %v; want %q", args, err, want)
	}
	return err
}

// Conn is a conversation with an emulator.
type Conn struct {
	net.Conn
	t testing.TB
}

// Dial connects to an address until the test ends.
func Dial(t testing.TB, address string) Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return Talk(t, c)
}

// Talk takes charge of a connection.
func Talk(t testing.TB, c net.Conn) Conn {
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(Patience))
	return Conn{c, t}
}

// Say sends text and wants this answer, byte by byte.
func (c Conn) Say(text, answer string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
	got := make([]byte, len(answer))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != answer {
		c.t.Fatalf("answer %q, %v; want %q", got[:n], err, answer)
	}
}

// The ends of a conversation.
const (
	Closed = "closed"
	Reset  = "reset"
	Silent = "silent"
)

// Ends wants nothing more but this end.
func (c Conn) Ends(end string) {
	c.t.Helper()
	if end == Silent {
		_ = c.SetReadDeadline(time.Now().Add(silence))
	}
	n, err := c.Read(make([]byte, 1))
	got := map[bool]string{
		err == io.EOF:                          Closed,
		errors.Is(err, syscall.ECONNRESET):     Reset,
		errors.Is(err, os.ErrDeadlineExceeded): Silent,
	}[true]
	if n > 0 || got != end {
		c.t.Fatalf("%d bytes, %v; want the connection to be %s", n, err, end)
	}
}

// Unset returns the paths of a struct's fields that are zero, in structs within it as well:
// options that no flag sets.
func Unset(v any) []string {
	var paths []string
	s := reflect.ValueOf(v)
	for i := range s.NumField() {
		name, f := s.Type().Field(i).Name, s.Field(i)
		switch {
		case f.IsZero():
			paths = append(paths, name)
		case f.Kind() == reflect.Struct:
			for _, inner := range Unset(f.Interface()) {
				paths = append(paths, name+"."+inner)
			}
		}
	}
	return paths
}
