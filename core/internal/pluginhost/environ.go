package pluginhost

import (
	"os"
	"slices"

	"github.com/tunneld/tunneld/internal/nodump"
	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// passedOn are the variables of the daemon's environment that a plugin gets:
// what finds programs, temporary files, certificates and the proxy, where
// coverage goes, whether debuggers are let in, and whether keys may be written to a file.
// Everything else may hold secrets of other plugins.
var passedOn = []string{
	"PATH", "TMPDIR",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
	"http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"GOCOVERDIR",
	// Who opens the daemon to debuggers means what it starts, too.
	nodump.Env,
	tlsconf.KeyLogEnv,
}

// environ returns the whole environment of a plugin. handshake are the
// variables of go-plugin; they come after the spec's, and the last of a name
// counts. The spec is of the configuration, which also names the file of the keys: it does
// not allow that file as well. The plugin logs everything, since a reload can change the
// level that is wanted and not the environment: what is not wanted ends in output.
func environ(s Spec, handshake []string) []string {
	var env []string
	for _, key := range passedOn {
		if v, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+v)
		}
	}
	for key, v := range s.Env {
		if key != tlsconf.KeyLogEnv {
			env = append(env, key+"="+v)
		}
	}
	env = slices.Concat(env, handshake)
	return append(env, pluginwire.EnvChannel+"="+channelFD, pluginwire.EnvLogLevel+"=debug")
}
