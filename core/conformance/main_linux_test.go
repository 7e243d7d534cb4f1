package conformance

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/core/internal/plugintest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "forward" {
		os.Exit(forward(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "framed" {
		os.Exit(framedFarEnd(os.Args[2:]))
	}
	plugintest.Serve(map[string]func() int{
		fixture.DirectName: func() int { return sdk.Serve(fixture.Direct()) },
		fixture.RelayName:  func() int { return sdk.Serve(fixture.Relay()) },
		rawName:            serveRaw,
		framedName:         func() int { return sdk.Serve(framedPlugin()) },
		"sleeper":          sleep,
	})
	goleak.VerifyTestMain(m)
}
