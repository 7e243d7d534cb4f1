package pluginhost

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest/fixture"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// TestStartFails has plugins that do not come up: each error says what
// happened, and shows what they printed.
func TestStartFails(t *testing.T) {
	for _, tt := range []struct {
		mode      string
		want      string
		output    string
		handshake bool // the protocol's page says more
	}{
		{"exit", "it ended (exit status 7) before its handshake", "cannot open the frobnicator", false},
		{"no handshake", "no handshake: not ready after", "waiting for nothing", true},
		{"print first", `it printed "hello, I am a plugin" instead of its handshake: call sdk.Serve first`, "and this is my stderr", false},
		{"print without end", `it printed "xxxx`, "", false},
		{"tcp", "it listens on tcp 127.0.0.1:1, and only a unix socket is allowed", "", true},
		{"netrpc", `unsupported plugin protocol "netrpc"`, "", true},
		{"version 2", "incompatible API version", "", true},
		{"handshake and exit", "it ended (exit status 9)", "", true},
		{"handshake and silence", "not ready after", "", true},
		{"other name", `it says that its name is "somebody else"`, "", false},
		{"stream only", "its dials answer only with unsupported data paths (stream, unknown), and this tunneld supports direct and relay: use a newer tunneld", "", false},
		{"dies when asked", "it ended (exit status 11)", "", false},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			h := newHost(t, func(o *Options) {
				if strings.Contains(tt.want, "not ready") {
					o.StartTimeout = time.Second
				}
			})
			begun := time.Now()
			err := h.startFails(t, rawSpec(tt.mode))
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), `start plugin "raw": `) {
				t.Errorf("error %q, want %q", err, tt.want)
			}
			if !strings.Contains(err.Output, tt.output) || tt.output != "" && !strings.Contains(err.Error(), tt.output) {
				t.Errorf("output %q, want %q", err.Output, tt.output)
			}
			if err.Handshake != tt.handshake {
				t.Errorf("handshake is %t", err.Handshake)
			}
			if d := time.Since(begun); d > 10*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

// TestDataPaths: one data path that the daemon takes is enough.
func TestDataPaths(t *testing.T) {
	p := newHost(t, nil).start(t, rawSpec("stream too"))
	configure(t, p, 1, `{}`)
	c, err := dialTo(t, p, 1, tunnel.Target{Host: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Stream.Close()
	c.Relay.Ended()
}

// TestStartCanceled cancels a start that hangs.
func TestStartCanceled(t *testing.T) {
	h := newHost(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := h.Start(ctx, rawSpec("no handshake")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// TestCloseDuringStart closes the host while a plugin hangs in its start.
func TestCloseDuringStart(t *testing.T) {
	h := newHost(t, nil)
	result := make(chan error, 1)
	go func() {
		_, err := h.Start(context.Background(), rawSpec("no handshake"))
		result <- err
	}()
	h.log.await(t, "waiting for nothing")
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestGarbageOnStderr has a plugin print what makes go-plugin panic, and more
// than anybody wants to read.
func TestGarbageOnStderr(t *testing.T) {
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			h := newHost(t, nil)
			p := h.start(t, spec(t, form, rawName, map[string]string{"RAW_MODE": "garbage"}))
			h.log.await(t, `"WARN"`, `{\"@message\":1}`, `"plugin":"raw"`, `"stream":"stderr"`)
			line := h.log.await(t, "after the flood")
			for k, want := range map[string]any{"level": "ERROR", "plugin": "raw", "upstream": "u", "n": 3.0, "l": "[1,2]"} {
				if line[k] != want {
					t.Errorf("%s is %v, want %v, in %v", k, line[k], want, line)
				}
			}
			if g, ok := line["g"].(map[string]any); !ok || g["a"] != true {
				t.Errorf("group %v", line["g"])
			}
			h.log.await(t, "prints too much")
			if n := h.log.count("flood"); n > 2000 {
				t.Errorf("%d lines of the flood were logged", n)
			}
			// It works all the same.
			configure(t, p, 1, `{}`)
		})
	}
}

// TestPrintAfterHandshake has a plugin print where go-plugin redirected it to.
func TestPrintAfterHandshake(t *testing.T) {
	h := newHost(t, nil)
	h.start(t, rawSpec(""))
	h.log.await(t, "printed to stdout after the handshake", `"WARN"`, `"stream":"stdout"`)
}

// TestPrintOfSDKPlugin has a plugin of the SDK print in a dial.
func TestPrintOfSDKPlugin(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, Spec{Name: fixture.DirectName, Bundled: true})
	configure(t, p, 1, `{"print":"look at me"}`)
	c, err := dialTo(t, p, 1, echoServer(t))
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, c, "x")
	h.log.await(t, "look at me", `"WARN"`, `"stdout"`, `"plugin":"fixdirect"`)
	h.log.await(t, "look at me", `"WARN"`, `"stderr"`, `"plugin":"fixdirect"`)
}

// TestStdinIsNull has a plugin read its stdin, which must neither block nor
// stop it.
func TestStdinIsNull(t *testing.T) {
	h := newHost(t, nil)
	h.start(t, rawSpec("stdin"))
	h.log.await(t, "stdin: 0 bytes, <nil>")
}

// TestStopOfStopped stops a plugin that SIGSTOP holds: SIGTERM does not reach
// it.
func TestStopOfStopped(t *testing.T) {
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			h := newHost(t, func(o *Options) { o.StopTimeout = 50 * time.Millisecond })
			p := h.start(t, spec(t, form, fixture.DirectName, nil))
			if err := syscall.Kill(p.State().PID, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			if err := p.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			if d := time.Since(begun); d > 5*time.Second {
				t.Errorf("took %s", d)
			}
			if s := p.State(); s.LastExit != "signal: killed" {
				t.Errorf("state %+v", s)
			}
		})
	}
}

// TestStopIsCutShort stops a plugin that ignores SIGTERM, with a context that
// does not wait for StopTimeout.
func TestStopIsCutShort(t *testing.T) {
	h := newHost(t, func(o *Options) { o.StopTimeout = time.Hour })
	p := h.start(t, rawSpec("deaf to SIGTERM"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// TestPingFindsStopped has a plugin stop answering: it is replaced.
func TestPingFindsStopped(t *testing.T) {
	target := echoServer(t)
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			h := newHost(t, func(o *Options) { o.PingInterval, o.CallTimeout = 50*time.Millisecond, 2*time.Second })
			p := h.start(t, spec(t, form, fixture.DirectName, nil))
			configure(t, p, 1, `{}`)
			pid := p.State().PID
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			s := h.await(t, "a restart", func(s State) bool { return s.Restarts == 1 && s.Status == StatusRunning })
			if s.PID == pid || s.LastExit != "it stopped answering and was killed" {
				t.Errorf("state %+v", s)
			}
			c, err := dialTo(t, p, 1, target)
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, c, "again")
		})
	}
}

var grandchildLine = regexp.MustCompile(`grandchild (\d+)`)

// TestGrandchild has a plugin leave a process behind that holds its stderr and
// its end of the descriptor channel. Within its group it dies with the plugin;
// outside it lives on and holds nothing up.
func TestGrandchild(t *testing.T) {
	for _, mode := range []string{"grandchild", "escaped grandchild"} {
		t.Run(mode, func(t *testing.T) {
			h := newHost(t, nil)
			p := h.start(t, rawSpec(mode))
			configure(t, p, 1, `{}`)
			line := h.log.await(t, "grandchild ")
			pid, err := strconv.Atoi(grandchildLine.FindStringSubmatch(line["line"].(string))[1])
			if err != nil {
				t.Fatal(err)
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			t.Cleanup(func() { _ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
			// Its death is noticed all the same.
			if err := syscall.Kill(p.State().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			h.await(t, "a restart", func(s State) bool { return s.Restarts == 1 && s.Status == StatusRunning })
			if mode == "grandchild" {
				ended(t, fd)
			}
			begun := time.Now()
			if err := p.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			if d := time.Since(begun); d > 10*time.Second {
				t.Errorf("stop took %s", d)
			}
			if mode != "grandchild" {
				// The second one, which the restarted plugin left behind.
				for _, m := range grandchildLine.FindAllStringSubmatch(h.log.String(), -1) {
					if n, err := strconv.Atoi(m[1]); err == nil && n != pid {
						_ = syscall.Kill(n, syscall.SIGKILL)
					}
				}
			}
		})
	}
}

// ended waits for the process of a pidfd to end.
func ended(t *testing.T, fd int) {
	t.Helper()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n != 1 {
			t.Fatalf("the process lives on (%v)", err)
		}
		return
	}
}

// serveDaemon is a daemon to be killed: it runs plugins and says which.
func serveDaemon() int {
	h, err := New(Options{Log: slog.New(slog.DiscardHandler), RunDir: os.Getenv("DAEMON_DIR")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var pids []int
	for _, name := range []string{fixture.DirectName, fixture.RelayName} {
		p, err := h.Start(context.Background(), Spec{Name: name, Bundled: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		pids = append(pids, p.State().PID)
	}
	_ = json.NewEncoder(os.Stdout).Encode(pids)
	time.Sleep(10 * patience)
	return 0
}

// TestDaemonKilled kills the daemon with SIGKILL: no plugin is left, and the
// next one clears the run directory.
func TestDaemonKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := nettest.SocketDir(t)
	daemon := exec.Command(exe, "plugin", "serve", "daemon")
	daemon.Env = append(os.Environ(), "DAEMON_DIR="+dir)
	daemon.Stderr = os.Stderr
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Errorf("read from the daemon: %v", err)
	}
	var pids []int
	if err := json.Unmarshal([]byte(line), &pids); err != nil {
		t.Errorf("%q: %v", line, err)
	}
	var fds []int
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Errorf("plugin %d: %v", pid, err)
			continue
		}
		fds = append(fds, fd)
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = daemon.Wait()
	for _, fd := range fds {
		ended(t, fd)
		_ = unix.Close(fd)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the killed daemon left %v, %v", left, err)
	}
	h := newHost(t, func(o *Options) { o.RunDir = dir })
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || dir+"/"+left[0].Name() != h.run.path {
		t.Errorf("after the sweep: %v, %v", left, err)
	}
}

// TestChannelClosed has a plugin that closes its descriptor channel and lives.
func TestChannelClosed(t *testing.T) {
	h := newHost(t, nil)
	p := h.start(t, rawSpec("deaf channel"))
	configure(t, p, 1, `{}`)
	_, err := dialTo(t, p, 1, tunnel.Target{Host: "close the channel"})
	if e := dialError(t, err); e.Reason != pluginv1.Reason_REASON_UNAVAILABLE || !strings.Contains(e.Message, "closed its descriptor channel") {
		t.Errorf("error %+v", e)
	}
	h.await(t, "a restart", func(s State) bool { return s.Restarts == 1 && s.Status == StatusRunning })
}

// TestChannelNotRead has a plugin that does not read its descriptor channel:
// what is sent to it must not block for long.
func TestChannelNotRead(t *testing.T) {
	h := newHost(t, nil)
	h.waits.send = 100 * time.Millisecond
	p := h.start(t, rawSpec("deaf channel"))
	configure(t, p, 1, `{}`)
	c, err := dialTo(t, p, 1, tunnel.Target{Host: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Relay.Ended()
	defer c.Stream.Close()
	for range 1_000_000 {
		if err = c.Relay.AnnounceEOF(); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("a million records were taken")
	}
	s := h.await(t, "a restart", func(s State) bool { return s.Restarts == 1 && s.Status == StatusRunning })
	if !strings.Contains(s.LastExit, "did not read its descriptor channel") {
		t.Errorf("state %+v", s)
	}
	if err := c.Relay.ConfirmEOF(); !errors.Is(err, tunnel.ErrPluginDied) {
		t.Errorf("error %v", err)
	}
}
