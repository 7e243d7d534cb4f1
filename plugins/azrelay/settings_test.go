package azrelay

import (
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
	"github.com/tunneld/tunneld/plugins/sdk"
)

const testKey = "8oKRDwkl0s440MlLUi4qHxDL34j1FS6K3t5TRoJ216c="

// valid is a configuration with the schema's defaults.
func valid() *Config {
	return &Config{
		Namespace: "myrelay.servicebus.windows.net", HybridConnection: "hc1",
		KeyName: "send", Key: sdk.NewSecret(testKey),
		TokenTTL: time.Hour, TokenIn: InHeader, Framing: FramingRaw, PingInterval: 30 * time.Second,
		Timeouts: Timeouts{Connect: time.Second, Handshake: time.Second, Accept: time.Second},
	}
}

func TestSettings(t *testing.T) {
	conn := "Endpoint=sb://myrelay.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=" + testKey
	for _, tt := range []struct {
		name                                         string
		change                                       func(*Config)
		scheme, address, namespace, path, query, key string
	}{
		{"namespace", func(*Config) {}, "wss", "myrelay.servicebus.windows.net:443", "myrelay.servicebus.windows.net", "hc1", "", testKey},
		{"suffix and query", func(c *Config) { c.HybridConnection = "/hc1/a/b/?x=1&y=2" }, "wss", "myrelay.servicebus.windows.net:443", "myrelay.servicebus.windows.net", "hc1/a/b", "x=1&y=2", testKey},
		{"endpoint", func(c *Config) { c.Endpoint = "gateway.example:8443" }, "wss", "gateway.example:8443", "myrelay.servicebus.windows.net", "hc1", "", testKey},
		{"absolute namespace", func(c *Config) { c.Namespace = "ns.example." }, "wss", "ns.example.:443", "ns.example", "hc1", "", testKey},
		{"absolute endpoint", func(c *Config) { c.Namespace, c.Endpoint = "", "ns.example.:444" }, "wss", "ns.example.:444", "ns.example", "hc1", "", testKey},
		{"namespace beyond ASCII", func(c *Config) { c.Namespace = "bücher.example" }, "wss", "bücher.example:443", "xn--bcher-kva.example", "hc1", "", testKey},
		{"plain endpoint without namespace", func(c *Config) { c.Namespace, c.Endpoint = "", "ws://[::1]:8080/" }, "ws", "[::1]:8080", "::1", "hc1", "", testKey},
		{"connection string", func(c *Config) { *c = Config{ConnectionString: sdk.NewSecret(conn + ";EntityPath=hc2")} }, "wss", "myrelay.servicebus.windows.net:443", "myrelay.servicebus.windows.net", "hc2", "", testKey},
		{"connection string of the namespace", func(c *Config) {
			*c = Config{ConnectionString: sdk.NewSecret(conn), HybridConnection: "hc3"}
		}, "wss", "myrelay.servicebus.windows.net:443", "myrelay.servicebus.windows.net", "hc3", "", testKey},
		{"connection string with a port, any case and order", func(c *Config) {
			*c = Config{ConnectionString: sdk.NewSecret(" entitypath=hc4; sharedaccesskey=" + testKey + ";SHAREDACCESSKEYNAME=k;endpoint=sb://ns:5671/;")}
		}, "wss", "ns:5671", "ns", "hc4", "", testKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := valid()
			tt.change(c)
			s, ds := c.settings()
			if len(ds) != 0 {
				t.Fatalf("%+v", ds)
			}
			got := [...]string{s.scheme, s.address, s.namespace, s.path, s.query, s.key.Reveal()}
			if want := [...]string{tt.scheme, tt.address, tt.namespace, tt.path, tt.query, tt.key}; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	token := sas.Sign("http://ns/hc1", "send", testKey, time.Unix(1900000000, 0))
	for _, tt := range []struct {
		name   string
		change func(*Config)
		path   string // of the one diagnostic; empty: none
	}{
		{"good", func(*Config) {}, ""},
		{"anonymous", func(c *Config) { c.KeyName, c.Key = "", sdk.Secret{} }, ""},
		{"ready-made token", func(c *Config) { c.KeyName, c.Key, c.ReadyToken = "", sdk.Secret{}, sdk.NewSecret(token) }, ""},
		{"no hybrid connection", func(c *Config) { c.HybridConnection = "/?x=1" }, "hybrid_connection"},
		{"a space in the path", func(c *Config) { c.HybridConnection = "a b" }, "hybrid_connection"},
		{"the protocol's own query", func(c *Config) { c.HybridConnection = "hc1?SB-hc-action=listen" }, "hybrid_connection"},
		{"a bad escape", func(c *Config) { c.HybridConnection = "hc1?x=%zz" }, "hybrid_connection"},
		{"a URL as namespace", func(c *Config) { c.Namespace = "sb://ns/" }, "namespace"},
		{"no name", func(c *Config) { c.Namespace = "ü_b" }, "namespace"},
		{"no name in an endpoint", func(c *Config) { c.Endpoint = "ü_b:1" }, "endpoint"},
		{"no namespace", func(c *Config) { c.Namespace = "" }, "namespace"},
		{"no port", func(c *Config) { c.Endpoint = "host" }, "endpoint"},
		{"a bad port", func(c *Config) { c.Endpoint = "host:70000" }, "endpoint"},
		{"another scheme", func(c *Config) { c.Endpoint = "http://host:80" }, "endpoint"},
		{"plain to elsewhere", func(c *Config) { c.Endpoint = "ws://host:80" }, "endpoint"},
		{"plain to here", func(c *Config) { c.Endpoint = "ws://localhost:80" }, ""},
		{"plain to an address of here", func(c *Config) { c.Endpoint = "ws://127.0.0.2:80" }, ""},
		{"plain to here by IPv6", func(c *Config) { c.Endpoint = "ws://[::1]:80" }, ""},
		{"plain to here by name", func(c *Config) { c.Endpoint = "ws://relay.LOCALHOST.:80" }, ""},
		{"a key without its name", func(c *Config) { c.KeyName = "" }, "key"},
		{"a name without its key", func(c *Config) { c.Key = sdk.Secret{} }, "key_name"},
		{"a key and a token", func(c *Config) { c.ReadyToken = sdk.NewSecret(token) }, "token"},
		{"not a token", func(c *Config) { c.KeyName, c.Key, c.ReadyToken = "", sdk.Secret{}, sdk.NewSecret("secret words") }, "token"},
		{"both forms", func(c *Config) {
			*c = *valid()
			c.Namespace, c.KeyName, c.Key = "", "", sdk.Secret{}
			c.ConnectionString = sdk.NewSecret("Endpoint=sb://ns/;SharedAccessKeyName=a;SharedAccessKey=b;EntityPath=hc")
		}, "hybrid_connection"},
		{"not a connection string", func(c *Config) {
			c.Namespace, c.HybridConnection, c.KeyName, c.Key = "", "", "", sdk.Secret{}
			c.ConnectionString = sdk.NewSecret("secret words")
		}, "connection_string"},
		{"a control character in a connection string", func(c *Config) {
			c.Namespace, c.KeyName, c.Key = "", "", sdk.Secret{}
			c.ConnectionString = sdk.NewSecret("Endpoint=sb://ns/;SharedAccessKeyName=a\tb;SharedAccessKey=b")
		}, "connection_string.SharedAccessKeyName"},
		{"ping_timeout without pings", func(c *Config) { c.PingInterval, c.PingTimeout = 0, time.Minute }, "ping_timeout"},
		{"a port name that goes nowhere", func(c *Config) { c.PortName = "x" }, "port_name"},
		{"a port name too long", func(c *Config) { c.Framing, c.PortName = FramingAzbridge, strings.Repeat("x", 256) }, "port_name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := valid()
			tt.change(c)
			var got []string
			for _, d := range c.Validate() {
				got = append(got, strings.Join(d.Path, "."))
				if strings.Contains(d.Summary+d.Detail, "secret") || d.Detail == "" {
					t.Errorf("%+v", d)
				}
			}
			if strings.Join(got, " ") != tt.path {
				t.Errorf("diagnostics at %q, want %q", got, tt.path)
			}
		})
	}
}

func TestToken(t *testing.T) {
	now := time.Unix(1800000000, 0)
	value, expires, err := Token(valid(), now)
	if err != nil || !expires.Equal(now.Add(time.Hour)) {
		t.Fatalf("ends %s, %v", expires, err)
	}
	parsed, err := sas.Parse(value.Reveal())
	if err != nil || parsed.Resource != "http://myrelay.servicebus.windows.net/hc1/" || parsed.KeyName != "send" || !parsed.Verify(testKey) {
		t.Errorf("%+v, %v", parsed, err)
	}
	ready := valid()
	ready.KeyName, ready.Key, ready.ReadyToken = "", sdk.Secret{}, value
	if got, until, err := Token(ready, now.Add(2*time.Hour)); err != nil || got.Reveal() != value.Reveal() || !until.Equal(expires) {
		t.Errorf("the ready-made token: %s, %v", until, err)
	}
	anonymous := valid()
	anonymous.KeyName, anonymous.Key = "", sdk.Secret{}
	broken := valid()
	broken.HybridConnection = ""
	short, past := valid(), valid()
	short.TokenTTL, past.TokenTTL = minTokenTTL-1, -5*time.Hour
	for _, c := range []*Config{anonymous, broken, short, past} {
		if got, until, err := Token(c, now); err == nil || !got.IsZero() {
			t.Errorf("a token until %s came out of %+v", until, c)
		}
	}
}

// The end of a file's last line is no part of what stands in the file.
func TestSecretsFromFiles(t *testing.T) {
	token := sas.Sign("http://ns/hc1", "send", testKey, time.Unix(1900000000, 0))
	conn := "Endpoint=sb://ns/;SharedAccessKeyName=send;SharedAccessKey=" + testKey + ";EntityPath=hc1"
	for name, tt := range map[string]struct {
		change     func(*Config)
		key, token string
	}{
		"key": {func(c *Config) { c.Key = sdk.NewSecret(testKey + "\n") }, testKey, ""},
		"connection string": {func(c *Config) {
			c.Namespace, c.KeyName, c.HybridConnection, c.Key = "", "", "", sdk.Secret{}
			c.ConnectionString = sdk.NewSecret(conn + "\r\n")
		}, testKey, ""},
		"token": {func(c *Config) { c.KeyName, c.Key, c.ReadyToken = "", sdk.Secret{}, sdk.NewSecret(token+"\n") }, "", token},
	} {
		t.Run(name, func(t *testing.T) {
			c := valid()
			tt.change(c)
			if ds := c.Validate(); len(ds) != 0 {
				t.Fatalf("%+v", ds)
			}
			s, _ := c.settings()
			if s.key.Reveal() != tt.key || s.token.Reveal() != tt.token {
				t.Errorf("key %q, token %q", s.key.Reveal(), s.token.Reveal())
			}
		})
	}
	blank := valid()
	blank.Key = sdk.NewSecret("\n")
	if ds := blank.Validate(); len(ds) != 1 || ds[0].Path[0] != "key_name" {
		t.Errorf("an empty file for a key: %+v", ds)
	}
}

func TestTokensAreCachedAndFreshBeforeTheirEnd(t *testing.T) {
	now := time.Unix(1800000000, 0)
	src := tokenSource{now: func() time.Time { return now }}
	s, _ := valid().settings()
	first := src.get(s, time.Hour)
	now = now.Add(54 * time.Minute)
	if src.get(s, time.Hour) != first {
		t.Error("a valid token was replaced")
	}
	now = now.Add(time.Minute) // five minutes before its end
	second := src.get(s, time.Hour)
	if second == first {
		t.Error("a token was used to its end")
	}
	if expires, renewed := src.validity(); !expires.Equal(now.Add(time.Hour)) || !renewed.Equal(now) {
		t.Errorf("valid until %s, since %s", expires, renewed)
	}
	now = now.Add(time.Second)
	src.drop(first)
	if src.get(s, time.Hour) != second {
		t.Error("the refusal of an old token dropped the new one")
	}
	src.drop(second)
	if src.get(s, time.Hour) == second {
		t.Error("a refused token was used again")
	}
}

// A key that is dropped may be the credential: the dial would be anonymous.
func TestConnectionStringsHoldNothingUnknown(t *testing.T) {
	const good = "Endpoint=sb://ns/;EntityPath=hc1;"
	for _, tt := range []struct{ add, want string }{
		{"Authentication=Managed Identity", `"Authentication"`},
		{"SharedAccessKeyName=send;SharedAccesKey=hidden", `"SharedAccesKey"`},
		{"Shared Access Key=hidden", `"Shared Access Key"`},
		{"OperationTimeout=00:01:00", `"OperationTimeout"`},
		{"SharedAccessKeyName=;SharedAccessKey=", "sharedaccesskeyname is empty"},
		{"SharedAccessSignature= ", "sharedaccesssignature is empty"},
		// A stray semicolon in a key.
		{"SharedAccessKeyName=send;SharedAccessKey=a;hidden1+/=", "not shown"},
		{"SharedAccessKeyName=send;SharedAccessKey=a;" + strings.Repeat("hidden", 7) + "=", "not shown"},
		{"=hidden", "not shown"},
	} {
		t.Run(tt.add, func(t *testing.T) {
			c := valid()
			c.Namespace, c.KeyName, c.HybridConnection, c.Key = "", "", "", sdk.Secret{}
			c.ConnectionString = sdk.NewSecret(good + tt.add)
			ds := c.Validate()
			if len(ds) != 1 || ds[0].Warning || ds[0].Path[0] != "connection_string" || !strings.Contains(ds[0].Summary, tt.want) {
				t.Fatalf("%+v, want an error at connection_string with %s", ds, tt.want)
			}
			if text := ds[0].Summary + ds[0].Detail; strings.Contains(text, "hidden") {
				t.Errorf("a value is shown: %s", text)
			}
		})
	}
}

// A wrong scheme is one error, of the scheme, and not of what cannot be read behind it.
func TestConnectionStringsScheme(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://ns/":    "begins with https:// and not with sb://",
		"wss://ns":       "begins with wss:// and not with sb://",
		"HTTPS://ns/":    "begins with https:// and not with sb://",
		"hidden://ns/":   "begins with another scheme and not with sb://",
		"sb:///":         "is not sb://host/",
		"ns.windows.net": "is not sb://host/",
		"SB://ns/":       "no hybrid connection is named", // a scheme in any case (RFC 3986, section 3.1)
	} {
		c := &Config{ConnectionString: sdk.NewSecret("Endpoint=" + endpoint + ";SharedAccessKeyName=send;SharedAccessKey=" + testKey)}
		ds := c.Validate()
		if len(ds) != 1 || !strings.Contains(ds[0].Summary, want) || strings.Contains(ds[0].Summary, "hidden") {
			t.Errorf("%s: %+v, want one error with %q", endpoint, ds, want)
		}
	}
}

func FuzzParseConnectionString(f *testing.F) {
	f.Add("Endpoint=sb://ns/;SharedAccessKeyName=a;SharedAccessKey=b=;EntityPath=hc")
	f.Add("Endpoint=sb://[::1]:80;SharedAccessSignature=SharedAccessSignature sr=a&sig=b")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := parseConnectionString(s); err == nil && c.host == "" {
			t.Errorf("%q has no host", s)
		}
	})
}
