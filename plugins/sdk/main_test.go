package sdk_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// envServe makes the test binary the plugin that it names.
const envServe = "TUNNELD_SDK_TEST_SERVE"

func TestMain(m *testing.M) {
	plugins := map[string]func() sdk.Plugin{
		"direct":  fixture.Direct,
		"relay":   fixture.Relay,
		"curious": curiousPlugin,
		"broken":  brokenPlugin,
		"printer": printerPlugin,
	}
	if p := plugins[os.Getenv(envServe)]; p != nil {
		os.Exit(sdk.Serve(p()))
	}
	goleak.VerifyTestMain(m)
}

// curious answers each dial with what a process that it starts inherits.
type curious struct{}

func (*curious) Dial(ctx context.Context, _ *sdk.Request) (*sdk.Tunnel, error) {
	out, err := exec.CommandContext(ctx, "/bin/sh", "-c", "ls -l /proc/self/fd | grep -c socket; grep SigIgn: /proc/self/status").CombinedOutput()
	sockets, ignored, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return nil, &sdk.DialError{
		Reason:  sdk.ReasonDenied,
		Message: fmt.Sprintf("channel=%q sockets=%s ignored=%s err=%v", os.Getenv(pluginwire.EnvChannel), sockets, strings.TrimSpace(strings.TrimPrefix(ignored, "SigIgn:")), err),
	}
}

func curiousPlugin() sdk.Plugin {
	return sdk.Plugin{Name: "curious", Version: "1", New: func() sdk.Dialer { return new(curious) }}
}

// standardError is what a package has that kept it before Serve replaced it.
var standardError = os.Stderr

// printer prints there at each dial, and says how that went.
type printer struct{}

func (*printer) Dial(context.Context, *sdk.Request) (*sdk.Tunnel, error) {
	_, err := fmt.Fprintln(standardError, "printed")
	return nil, &sdk.DialError{Reason: sdk.ReasonDenied, Message: fmt.Sprint("print: ", err)}
}

func printerPlugin() sdk.Plugin {
	return sdk.Plugin{Name: "printer", Version: "1", New: func() sdk.Dialer { return new(printer) }}
}

// broken has a struct that is no schema.
type broken struct {
	curious
	Untagged string
}

func brokenPlugin() sdk.Plugin {
	return sdk.Plugin{Name: "broken", Version: "1", New: func() sdk.Dialer { return new(broken) }}
}
