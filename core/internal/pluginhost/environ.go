package pluginhost

import (
	"context"
	"log/slog"
	"os"
	"slices"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

// passedOn are the variables of the daemon's environment that a plugin gets:
// what finds programs, temporary files, certificates and the proxy, and where
// coverage goes. Everything else may hold secrets of other plugins.
var passedOn = []string{
	"PATH", "TMPDIR",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
	"http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"GOCOVERDIR",
}

// environ returns the whole environment of a plugin. handshake are the
// variables of go-plugin; they come after the spec's, and the last of a name
// counts.
func environ(s Spec, handshake []string, level string) []string {
	var env []string
	for _, key := range passedOn {
		if v, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+v)
		}
	}
	for key, v := range s.Env {
		env = append(env, key+"="+v)
	}
	env = slices.Concat(env, handshake)
	return append(env, pluginwire.EnvChannel+"="+channelFD, pluginwire.EnvLogLevel+"="+level)
}

// logLevel is the least level that log takes, as EnvLogLevel has it.
func logLevel(log *slog.Logger) string {
	ctx := context.Background()
	switch {
	case log.Enabled(ctx, slog.LevelDebug):
		return "debug"
	case log.Enabled(ctx, slog.LevelInfo):
		return "info"
	case log.Enabled(ctx, slog.LevelWarn):
		return "warn"
	}
	return "error"
}
