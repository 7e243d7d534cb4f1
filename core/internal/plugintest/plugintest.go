// Package plugintest lets a test binary be its own plugins, as the program is
// its bundled ones. It is for tests only.
package plugintest

import (
	"os"
	"path/filepath"
	"strings"
)

// Serve runs a plugin and exits with what it returns, if the test binary was
// started to be one: as "BINARY plugin serve NAME" or under the name that Link
// made. Otherwise it returns at once. It belongs at the beginning of TestMain:
//
//	func TestMain(m *testing.M) {
//		plugintest.Serve(map[string]func() int{
//			"acme": func() int { return sdk.Serve(acme.Plugin()) },
//		})
//		goleak.VerifyTestMain(m)
//	}
func Serve(plugins map[string]func() int) {
	name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), prefix)
	if !ok {
		if len(os.Args) != 4 || os.Args[1] != "plugin" || os.Args[2] != "serve" {
			return
		}
		name = os.Args[3]
	}
	serve := plugins[name]
	if serve == nil {
		_, _ = os.Stderr.WriteString("no plugin " + name + " in this test binary\n")
		os.Exit(2)
	}
	os.Exit(serve())
}

const prefix = "tunneld-plugin-"

// Link puts the test binary into dir as tunneld-plugin-NAME and returns the
// path.
func Link(dir, name string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, prefix+name)
	return path, os.Symlink(exe, path)
}
