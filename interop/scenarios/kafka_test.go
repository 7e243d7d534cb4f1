//go:build interop

package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/proctest"
)

// node returns a program for Node with its packages installed.
func node(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return exec.Command(proctest.Node(t), args...)
}

var brokerNames = []string{"kafka-1.corp:9092", "kafka-2.corp:9092", "kafka-3.corp:9092"}

// orders checks what kafka.js has read: every record once, by its partition's
// leader and in its order.
func orders(t *testing.T, out string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var got []string
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	var want []string
	for n := range 30 {
		want = append(want, fmt.Sprintf("%d/%d order %d", n%3, n/3, n))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("read %q\nwant %q", got, want)
	}
}

// wentToAll checks that each broker was asked by name for its partition.
func wentToAll(t *testing.T, c *cluster, names []string) {
	t.Helper()
	if !slices.Equal(names, brokerNames) {
		t.Errorf("the proxy was asked for %q", names)
	}
	if got := c.leaders(); !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("records went through the brokers %v", got)
	}
}

// TestKafkaThroughSOCKS5: kafkajs with the example's socket factory produces to
// and consumes from three brokers whose names do not exist on this machine.
func TestKafkaThroughSOCKS5(t *testing.T) {
	cmd := node(t, "kafka.js")
	c, mappings := startCluster(t)
	emu := connectivity(t, mappings)
	d := startExample(t, "kafka-socks5", emu)
	cmd.Env = append(os.Environ(), "SOCKS="+d.addresses["socks5.kafka"])
	orders(t, mustOutput(t, cmd))
	wentToAll(t, c, asked(emu))
}

// TestKafkaRefused: a broker that the Cloud Connector does not map is a refusal
// that kafkajs's user reads.
func TestKafkaRefused(t *testing.T) {
	cmd := node(t, "kafka.js")
	emu := connectivity(t, map[string]string{})
	d := startExample(t, "kafka-socks5", emu)
	cmd.Env = append(os.Environ(), "SOCKS="+d.addresses["socks5.kafka"])
	if out, err := output(t, cmd); err == nil || !strings.Contains(out, "SOCKS: not allowed") {
		t.Errorf("%v\n%s", err, out)
	}
}

// resolved makes a program resolve names by the example's hosts file, as a
// machine does with the lines in /etc/hosts.
func resolved(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	return resolvedBy(t, filepath.Join(examples, "kafka-listeners", "hosts"), cmd)
}

func resolvedBy(t *testing.T, hostsFile string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if runtime.GOOS != "linux" {
		proctest.Missing(t, "nss_wrapper")
	}
	found, err := filepath.Glob("/usr/lib/*/libnss_wrapper.so")
	if err != nil || len(found) == 0 {
		proctest.Missing(t, "libnss-wrapper")
	}
	hosts, err := filepath.Abs(hostsFile)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+found[0], "NSS_WRAPPER_HOSTS="+hosts)
	return cmd
}

// TestKafkaThroughListeners: kafkajs and librdkafka, which know of no proxy,
// reach every broker by the listener that stands for it.
func TestKafkaThroughListeners(t *testing.T) {
	c, mappings := startCluster(t)
	emu := connectivity(t, mappings)
	startExample(t, "kafka-listeners", emu)
	orders(t, mustOutput(t, resolved(t, node(t, "kafka.js"))))
	wentToAll(t, c, asked(emu))

	t.Run("kcat", func(t *testing.T) {
		kcat := proctest.Tool(t, "kcat")
		const text = "from librdkafka"
		for p := range kafkaBrokers {
			produce := resolved(t, exec.Command(kcat, "-b", "kafka-1.corp:9092", "-t", kafkaTopic, "-P", "-p", fmt.Sprint(p)))
			produce.Stdin = strings.NewReader(text + "\n")
			mustOutput(t, produce)
			out := mustOutput(t, resolved(t, exec.Command(kcat, "-b", "kafka-1.corp:9092", "-t", kafkaTopic, "-C", "-p", fmt.Sprint(p), "-o", "beginning", "-e", "-q")))
			if got := strings.Split(strings.TrimSpace(out), "\n"); len(got) != 11 || got[10] != text {
				t.Errorf("partition %d: read %q", p, got)
			}
		}
	})
}

// TestKafkaThroughOneListener: a single tcp listener breaks at the second
// connection, since the broker tells its clients names that lead past it. This is
// why the examples are as they are.
func TestKafkaThroughOneListener(t *testing.T) {
	_, mappings := startCluster(t)
	d := startExample(t, "kafka-listeners", connectivity(t, mappings))
	kcat, one := proctest.Tool(t, "kcat"), d.addresses["tcp.kafka-1"]
	// The first connection works, and tells the names of the others.
	if out := mustOutput(t, exec.Command(kcat, "-b", one, "-L", "-t", kafkaTopic)); !strings.Contains(out, "kafka-2.corp:9092") {
		t.Errorf("metadata:\n%s", out)
	}
	// They lead anywhere but to that listener; here to where nothing listens.
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.99 kafka-1.corp\n127.0.0.99 kafka-2.corp\n127.0.0.99 kafka-3.corp\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	consume := resolvedBy(t, hosts, exec.CommandContext(ctx, kcat, "-b", one, "-t", kafkaTopic, "-C", "-p", "1", "-o", "beginning", "-e"))
	stderr, err := consume.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := consume.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if strings.Contains(lines.Text(), "127.0.0.99:9092 failed") {
			cancel()
			_ = consume.Wait() // killed
			return
		}
	}
	t.Errorf("kcat did not look for another broker by its own name: %v", consume.Wait())
}
