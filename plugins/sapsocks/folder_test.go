package sapsocks_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// mount writes a service binding as Kubernetes mounts a secret: the files are
// links through ..data to a folder of their own. A second time it swaps ..data,
// which is how a rotation looks.
func mount(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	version, err := os.MkdirTemp(folder, "..2026_")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, filepath.Join(version, name), text)
		err := os.Symlink(filepath.Join("..data", name), filepath.Join(folder, name))
		if err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	data, fresh := filepath.Join(folder, "..data"), filepath.Join(folder, "..data_tmp")
	old, _ := os.Readlink(data)
	if err := os.Symlink(filepath.Base(version), fresh); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, data); err != nil {
		t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(folder, old)); err != nil {
			t.Fatal(err)
		}
	}
}

// asJSON makes one file of all credentials, and the .metadata for it.
func asJSON(t *testing.T, credentials map[string]string) map[string]string {
	t.Helper()
	b, err := json.Marshal(credentials)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"credentials": string(b),
		".metadata": `{"metaDataProperties":[{"name":"type","format":"text"},{"name":"tags","format":"json"}],
			"credentialProperties":[{"name":"credentials","format":"json","container":true}]}`,
		"type": "connectivity",
		"tags": `["connectivity"]`,
	}
}

// metadata names each credential in .metadata; the port is a JSON string there.
func metadata(t *testing.T, credentials map[string]string) map[string]string {
	t.Helper()
	type property struct {
		Name   string `json:"name"`
		Format string `json:"format"`
	}
	var properties []property
	files := map[string]string{"type": "connectivity", "clientid_of_another": "x"}
	for _, name := range slices.Sorted(maps.Keys(credentials)) {
		format := "text"
		files[name] = credentials[name]
		if strings.HasSuffix(name, "port") {
			format, files[name] = "json", strconv.Quote(credentials[name])
		}
		properties = append(properties, property{name, format})
	}
	b, err := json.Marshal(values{"metaDataProperties": []property{{"type", "text"}}, "credentialProperties": properties})
	if err != nil {
		t.Fatal(err)
	}
	files[".metadata"] = string(b)
	return files
}

// Notes, "Kubernetes": files under <instance>/<key>, or with type and an optional
// .metadata; "the files are symlinks".
func TestServiceBinding(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	credentials := emu.Credentials()
	lines := map[string]string{"type": "connectivity\n"}
	for name, text := range credentials {
		lines[name] = text + "\n"
	}
	for name, files := range map[string]map[string]string{
		"a file per key":                     credentials,
		"with type, and line feeds":          lines,
		".metadata with a file per key":      metadata(t, credentials),
		".metadata with one file as JSON":    asJSON(t, credentials),
		"secretKey, before .metadata was":    {"mine": string(marshal(credentials)), "type": "connectivity", "plan": "lite", "instance_name": "mine"},
		"secretRootKey":                      {"root": string(marshal(with(credentials, "plan", "lite")))},
		"secretRootKey, of a key's name":     {"key": string(marshal(credentials))},
		"secretRootKey with secretKey":       {"root": string(marshal(values{"plan": "lite", "mine": string(marshal(credentials))}))},
		"keys that are not for this service": with(credentials, "token_service_url_pattern", "https://{tenant}.example"),
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			mount(t, folder, files)
			reach(t, configure(t, values{"service_binding": folder}), "echo.corp:7")
		})
	}
	t.Run("notes: some plans carry no host and port, so they can be set by hand", func(t *testing.T) {
		folder := t.TempDir()
		files := maps.Clone(credentials)
		delete(files, "onpremise_proxy_host")
		delete(files, "onpremise_socks5_proxy_port")
		mount(t, folder, files)
		reach(t, configure(t, values{"service_binding": folder, "proxy": emu.Proxy()}), "echo.corp:7")
		if ds := sdktest.Start(t, sapsocks.Plugin()).Validate(t, "onprem", values{"service_binding": folder}); len(ds) != 1 || ds[0].Path[0] != "proxy" {
			t.Errorf("%+v, want one of proxy", ds)
		}
	})
}

func with(m map[string]string, name, text string) map[string]string {
	m = maps.Clone(m)
	m[name] = text
	return m
}

func TestServiceBindingDiagnostics(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{ClientSecret: secret})
	plugin := sdktest.Start(t, sapsocks.Plugin())
	credentials := emu.Credentials()
	many := map[string]string{}
	for i := range 300 {
		many[strconv.Itoa(i)] = "x"
	}
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing in it":          {map[string]string{}, "no credential in "},
		"nothing that is known":  {map[string]string{"username": "x"}, "no credential in "},
		"JSON of another kind":   {map[string]string{"root": `{"username":"` + secret + `"}`}, "nor a JSON file with them"},
		"JSON twice":             {map[string]string{"a": string(marshal(credentials)), "b": string(marshal(credentials))}, `hold credentials as JSON: "a", "b"`},
		"JSON that is too large": {map[string]string{"root": strings.Repeat("x", 1<<20+1)}, "root: it is larger than 1 MiB"},
		"container with nothing": {with(asJSON(t, credentials), "credentials", `{"username":"`+secret+`"}`), "credentials holds no credential"},
		"port":                   {with(credentials, "onpremise_socks5_proxy_port", "0"), `onpremise_socks5_proxy_port "0" is not a port`},
		"broken .metadata":       {with(credentials, ".metadata", secret), ".metadata is malformed: it is broken at byte 1"},
		".metadata leads out":    {with(credentials, ".metadata", `{"credentialProperties":[{"name":"../clientid"}]}`), `.metadata names "../clientid", which is not a file of the folder`},
		".metadata leads up":     {with(credentials, ".metadata", `{"credentialProperties":[{"name":".."}]}`), `.metadata names "..", which is not a file of the folder`},
		".metadata, no file":     {with(credentials, ".metadata", `{"credentialProperties":[{"name":"absent"}]}`), "absent: no such file"},
		"container is no object": {with(asJSON(t, credentials), "credentials", `["`+secret+`"]`), "credentials is not a JSON object"},
		"not the JSON it claims": {with(credentials, ".metadata", `{"credentialProperties":[{"name":"clientsecret","format":"json"}]}`), "clientsecret is not JSON"},
		"a value of another kind": {with(with(credentials, ".metadata", `{"credentialProperties":[{"name":"clientid","format":"json"}]}`), "clientid", "[1]"),
			"clientid is of type array"},
		"huge":           {with(credentials, "clientid", strings.Repeat("x", 1<<20+1)), "clientid: it is larger than 1 MiB"},
		"too many files": {many, "has more than 256 entries"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			mount(t, folder, tt.files)
			ds := plugin.Validate(t, "onprem", values{"service_binding": folder})
			if len(ds) != 1 || ds[0].Path[0] != "service_binding" || !strings.Contains(ds[0].Summary, tt.want) || ds[0].Detail == "" {
				t.Errorf("%+v, want %s", ds, tt.want)
			}
			for _, d := range ds {
				if strings.Contains(d.Summary+d.Detail, secret) {
					t.Errorf("the secret is shown: %+v", d)
				}
			}
		})
	}
}

// Notes: "The files are symlinks that are swapped on rotation." The new binding is
// used without a reload: proxy, credentials and all.
func TestServiceBindingRotated(t *testing.T) {
	before, after := emulate(t, sapsocksemu.Options{}), emulate(t, sapsocksemu.Options{})
	folder := t.TempDir()
	mount(t, folder, before.Credentials())
	u := configure(t, values{"service_binding": folder})
	reach(t, u, "echo.corp:7")
	mount(t, folder, after.Credentials())
	// Nobody dials meanwhile: the next token is fetched in the background.
	ctx := within(t)
	u.AwaitStatus(ctx, t, func(sdk.Status) bool { return after.TokensIssued() > 0 })
	reach(t, u, "echo.corp:7")
	if len(after.Conversations()) == 0 {
		t.Error("the dial went to the old proxy")
	}
}

// New credentials of the same proxy: the token in hand serves on, and the next
// one is fetched in the background with the new secret.
func TestSecretRotated(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	folder := t.TempDir()
	wrong := with(emu.Credentials(), "clientsecret", "of tomorrow")
	mount(t, folder, emu.Credentials())
	u := configure(t, values{"service_binding": folder})
	reach(t, u, "echo.corp:7")
	mount(t, folder, wrong)
	ctx := within(t)
	// The renewal fails, which shows that it was tried with what is mounted now;
	// the dials go on with the token in hand.
	failed := make(chan sdk.Status, 1)
	go func() {
		failed <- u.AwaitStatus(ctx, t, func(st sdk.Status) bool { return strings.Contains(st.Message, "refuses the client") })
	}()
	for {
		select {
		case st := <-failed:
			if st.Health != sdk.HealthOK {
				t.Errorf("%+v: there is a good token in hand", st)
			}
			reach(t, u, "echo.corp:7")
			return
		default:
			reach(t, u, "echo.corp:7")
		}
	}
}

// A binding that is unreadable in between leaves everything as it was, and is told of.
func TestServiceBindingUnreadable(t *testing.T) {
	emu := emulate(t, sapsocksemu.Options{})
	folder := t.TempDir()
	mount(t, folder, emu.Credentials())
	u := configure(t, values{"service_binding": folder})
	reach(t, u, "echo.corp:7")
	mount(t, folder, map[string]string{"clientid": "half of it"})
	u.AwaitFileProblem(within(t), t, "service_binding: ")
	issued := emu.TokensIssued()
	emu.RevokeTokens()
	reach(t, u, "echo.corp:7")
	if emu.TokensIssued() == issued {
		t.Error("no token was asked for")
	}
	issued = emu.TokensIssued()
	mount(t, folder, emu.Credentials())
	u.AwaitStatus(within(t), t, func(sdk.Status) bool { return emu.TokensIssued() > issued })
}
