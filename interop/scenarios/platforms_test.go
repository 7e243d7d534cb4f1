//go:build interop

package interop

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// readYAML decodes the documents of an example's file; a field that the type
// does not have is left out.
func readYAML[T any](t *testing.T, path string) []T {
	t.Helper()
	var out []T
	if err := json.Unmarshal([]byte(mustOutput(t, node(t, "yaml.js", filepath.Join(examples, path)))), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

type manifest struct {
	Applications []struct {
		Name     string
		Command  string
		Services []string
		Sidecars []struct {
			Name, Command, Memory string
			ProcessTypes          []string `json:"process_types"`
		}
	}
}

// TestCloudFoundry: the manifest starts the configuration beside it, and that
// leads from the application's port to the database.
func TestCloudFoundry(t *testing.T) {
	apps := readYAML[manifest](t, "cloudfoundry/manifest.yml")[0].Applications
	if len(apps) != 1 || len(apps[0].Sidecars) != 1 || len(apps[0].Services) != 1 {
		t.Fatalf("%+v", apps)
	}
	s := apps[0].Sidecars[0]
	if s.Command != "./tunneld run --config tunneld.hcl" || !slices.Equal(s.ProcessTypes, []string{"web"}) || s.Memory == "" {
		t.Errorf("%+v", s)
	}
	delay, drains := ends(t, "cloudfoundry")
	if delay == 0 || delay+drains+pluginsEnd > 10*time.Second {
		t.Errorf("it accepts for %s and drains for %s, and Cloud Foundry kills after 10s", delay, drains)
	}
	emu := connectivity(t, map[string]string{"orders-db.corp:5432": greeting(t, "the database")})
	d := startExample(t, "cloudfoundry", emu, runDir, shared(t))
	// As the application's command waits, but for the place of the files.
	probe, _, _ := strings.Cut(strings.TrimPrefix(apps[0].Command, "until ./tunneld "), ";")
	d.probe(strings.Fields(probe), "tunneld.hcl")
	if got, err := firstLine(t, d.addresses["tcp.orders"]); err != nil || got != "the database\n" {
		t.Errorf("read %q, %v", got, err)
	}
}

type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct{ Template struct{ Spec pod } }
}

type pod struct {
	TerminationGracePeriodSeconds int
	InitContainers                []container
	Volumes                       []struct {
		Name      string
		ConfigMap *struct{ Name string }
		Secret    *struct{ SecretName string }
	}
}

type container struct {
	Name            string
	Args            []string
	RestartPolicy   string
	VolumeMounts    []struct{ Name, MountPath string }
	SecurityContext struct {
		RunAsNonRoot bool
		RunAsUser    int
	}
	StartupProbe, ReadinessProbe struct {
		Exec struct{ Command []string }
	}
}

// runDir is the examples' daemon.run_dir.
const runDir = "/tmp/tunneld"

// shared returns a daemon.run_dir in a folder that everybody may write to, as an
// emptyDir is: it has the mode 0777, and no sticky bit.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shared")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "tunneld")
}

const bindingFolder = "/etc/secrets/sapcp/connectivity/my-connectivity"

// TestKubernetes: the deployment mounts what its configuration reads, which is
// the one beside it, and that leads to the database with the credentials of a
// mounted binding.
func TestKubernetes(t *testing.T) {
	objects := readYAML[object](t, "kubernetes/deployment.yaml")
	if len(objects) != 2 || objects[0].Kind != "ConfigMap" || objects[1].Kind != "Deployment" {
		t.Fatalf("%+v", objects)
	}
	src, err := os.ReadFile(filepath.Join(examples, "kubernetes", "tunneld.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	if embedded := objects[0].Data["tunneld.hcl"]; !slices.Equal(meaning(t, []byte(embedded)), meaning(t, src)) {
		t.Errorf("the deployment's configuration is not the one beside it:\n%s", embedded)
	}
	p := objects[1].Spec.Template.Spec
	from := map[string]string{}
	for _, v := range p.Volumes {
		switch {
		case v.ConfigMap != nil:
			from[v.Name] = "config map " + v.ConfigMap.Name
		case v.Secret != nil:
			from[v.Name] = "secret " + v.Secret.SecretName
		default:
			from[v.Name] = "a folder"
		}
	}
	mounted := map[string]string{}
	if len(p.InitContainers) != 1 || p.InitContainers[0].RestartPolicy != "Always" {
		t.Fatalf("no native sidecar: %+v", p.InitContainers)
	}
	sidecar := p.InitContainers[0]
	for _, m := range sidecar.VolumeMounts {
		mounted[m.MountPath] = from[m.Name]
	}
	if !slices.Equal(sidecar.Args, []string{"run", "--config", "/etc/tunneld"}) ||
		mounted["/etc/tunneld"] != "config map "+objects[0].Metadata.Name ||
		mounted[bindingFolder] != "secret my-connectivity" || mounted["/tmp"] != "a folder" {
		t.Errorf("args %q, mounted %q", sidecar.Args, mounted)
	}
	delay, drains := ends(t, "kubernetes")
	if delay == 0 || delay+drains+pluginsEnd > time.Duration(p.TerminationGracePeriodSeconds)*time.Second {
		t.Errorf("it accepts for %s and drains for %s, and is killed after %d seconds", delay, drains, p.TerminationGracePeriodSeconds)
	}
	// An image without users has root's number, which the kubelet refuses unless
	// the deployment names another.
	if c := sidecar.SecurityContext; !c.RunAsNonRoot || c.RunAsUser == 0 {
		t.Errorf("%+v", c)
	}
	image, err := os.ReadFile(filepath.Join(examples, "kubernetes", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`ENTRYPOINT ["/tunneld"]`, "COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/"} {
		if !slices.Contains(strings.Split(string(image), "\n"), line) {
			t.Errorf("the image lacks %q", line)
		}
	}

	emu := connectivity(t, map[string]string{"orders-db.corp:5432": greeting(t, "the database")})
	binding := t.TempDir()
	for key, value := range emu.Credentials() {
		if key == "onpremise_proxy_host" || key == "onpremise_socks5_proxy_port" {
			continue // the plan that the example is for has none
		}
		if err := os.WriteFile(filepath.Join(binding, key), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := startExample(t, "kubernetes", emu,
		runDir, shared(t), bindingFolder, binding, "connectivity-proxy.kyma-system.svc.cluster.local:20004", emu.Proxy())
	for _, probe := range [][]string{sidecar.StartupProbe.Exec.Command, sidecar.ReadinessProbe.Exec.Command} {
		if len(probe) == 0 || probe[0] != "/tunneld" {
			t.Fatalf("probes: %q", probe)
		}
		d.probe(probe[1:], "/etc/tunneld")
	}
	if got, err := firstLine(t, d.addresses["tcp.orders"]); err != nil || got != "the database\n" {
		t.Errorf("read %q, %v", got, err)
	}
}

// pluginsEnd is what a stop may take once the draining is over.
const pluginsEnd = 2 * time.Second

// ends returns an example's daemon.shutdown_delay and daemon.shutdown_timeout, or the
// default of the latter.
func ends(t *testing.T, example string) (delay, timeout time.Duration) {
	t.Helper()
	var c struct {
		Daemon struct {
			RunDir  string `hcl:"run_dir"`
			Delay   string `hcl:"shutdown_delay"`
			Timeout string `hcl:"shutdown_timeout,optional"`
		} `hcl:"daemon,block"`
		Rest hcl.Body `hcl:",remain"`
	}
	if err := hclsimple.DecodeFile(filepath.Join(examples, example, "tunneld.hcl"), nil, &c); err != nil {
		t.Fatal(err)
	}
	if c.Daemon.RunDir != runDir {
		t.Errorf("%s: the run directory is %q", example, c.Daemon.RunDir)
	}
	delay, delayErr := time.ParseDuration(c.Daemon.Delay)
	timeout, timeoutErr := time.ParseDuration(cmp.Or(c.Daemon.Timeout, "30s"))
	if err := errors.Join(delayErr, timeoutErr); err != nil {
		t.Fatal(err)
	}
	return delay, timeout
}

// meaning returns a configuration's tokens without comments and empty lines.
func meaning(t *testing.T, src []byte) []string {
	t.Helper()
	tokens, diags := hclsyntax.LexConfig(src, "tunneld.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var out []string
	for _, token := range tokens {
		text := string(token.Bytes)
		if token.Type == hclsyntax.TokenComment {
			text = "\n" // a comment takes its line's end with it
		}
		if text != "\n" || len(out) > 0 && out[len(out)-1] != "\n" {
			out = append(out, text)
		}
	}
	return out
}
