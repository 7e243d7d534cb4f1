//go:build interop

// Package interop tests sapsocks and its emulator against software that was not
// written here. It runs with "go test -tags interop".
package interop

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// patience bounds whatever a test waits for.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func split(t *testing.T, address string) (host string, port int) {
	t.Helper()
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

func emulate(t *testing.T, o sapsocksemu.Options) *sapsocksemu.Server {
	t.Helper()
	emu, err := sapsocksemu.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Errorf("close emulator: %v", err)
		}
	})
	return emu
}

// refused wants the failure that the plugin's table has for kind.
func refused(t *testing.T, u *sdktest.Upstream, target string, kind sapsocks.Kind) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := u.Dial(ctx, target)
	if err == nil {
		_ = c.Close()
		t.Fatalf("dial %s: it went well, want %s", target, kind)
	}
	var e *sdk.DialError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	for _, f := range sapsocks.Failures() {
		text, _, _ := strings.Cut(f.Message, "{")
		if f.Kind == kind && (e.Stage != f.Stage || e.Reason != f.Reason || !strings.HasPrefix(e.Message, text)) {
			t.Errorf("%v (%s), want %s", e, e.Reason, kind)
		}
	}
}
