package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary the program itself: for the daemon, which runs
// it as its bundled plugins, and for the scripts, which run it as "tunneld".
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "plugin" && os.Args[2] == "serve" || os.Getenv(asProgram) != "" {
		main()
	}
	testscript.Main(m, map[string]func(){"tunneld": main})
}

// asProgram makes a child of a test the program.
const asProgram = "TUNNELD_TEST_PROGRAM"

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
	})
}
