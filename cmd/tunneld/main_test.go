package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
)

// TestMain makes the test binary the program itself: for the daemon, which runs
// it as its bundled plugins, for the tests of a whole process, and for the
// scripts, which run it as "tunneld". It is also a plugin of a third party.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == asThirdParty {
		quickExit()
		for _, p := range thirdParties {
			if p.Name == os.Args[2] {
				os.Exit(sdk.Serve(p))
			}
		}
	}
	if len(os.Args) > 3 && os.Args[1] == "plugin" && os.Args[2] == "serve" || os.Getenv(asProgram) != "" {
		quickExit()
		main()
	}
	if filepath.Base(os.Args[0]) == "tunneld" {
		quickExit()
	} else {
		// The daemons of the tests leave the place of the user's own daemon alone.
		os.Unsetenv("RUNTIME_DIRECTORY")
		os.Unsetenv("XDG_RUNTIME_DIR")
	}
	testscript.Main(m, map[string]func(){"tunneld": main})
}

const (
	// asProgram is the variable that makes a child of a test the program.
	asProgram = "TUNNELD_TEST_PROGRAM"
	// asThirdParty is the argument that makes it a plugin that is not bundled.
	asThirdParty = "third-party"
)

// thirdParties are the plugins that it is then, by name.
var thirdParties = []sdk.Plugin{fixture.Direct(), fixture.Relay(), misfitPlugin, brazenPlugin}

// misfitPlugin is one that cannot be served: its schema has a type that there is
// not.
var misfitPlugin = sdk.Plugin{Name: "misfit", Version: "1.0.0", New: func() sdk.Dialer { return new(misfit) }}

type misfit struct {
	sdk.Dialer `tunneld:"-"`
	UserID     uint16 `tunneld:"user_id" doc:"a number"`
}

// brazenPlugin steers the terminal with whatever it says.
var brazenPlugin = sdk.Plugin{
	Name:    "brazen",
	Version: "1" + brazenWords,
	Summary: brazenWords,
	New:     func() sdk.Dialer { return new(brazen) },
}

const brazenWords = "\x1b[2Jbrazen words\r\u009b31m\u202e"

type brazen struct {
	sdk.Dialer `tunneld:"-"`
	Secret     sdk.Secret `tunneld:"secret" doc:"\x1b[2Jbrazen words\u009b31m"`
	Color      string     `tunneld:"color,freetext" default:"\x1b[31m\u009b" doc:"a color"`
}

// Validate implements sdk.Validator.
func (b *brazen) Validate() []sdk.Diagnostic {
	return []sdk.Diagnostic{{
		Warning: true,
		Summary: brazenWords + " for " + b.Secret.Reveal(),
		Detail:  b.Secret.Reveal() + ": tried https://u:s3cret@host/?s3cret" + brazenWords,
	}}
}

// quickExit starts a process of the race detector anew: its end takes a second
// unless its environment says otherwise from the start.
func quickExit() {
	const options = "GORACE"
	if _, set := os.LookupEnv(options); set || !raceDetector {
		return
	}
	// It does not return unless it fails.
	panic(syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), options+"=atexit_sleep_ms=0")))
}
