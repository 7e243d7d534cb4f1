package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/nodump"
)

// process is a program under measurement, in a process group of its own.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func start(ctx context.Context, stderr io.Writer, name string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = stderr
	// What it uses is read from /proc.
	cmd.Env = append(os.Environ(), nodump.Env+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &process{cmd: cmd, stdin: in, out: bufio.NewReader(out)}, nil
}

// stop ends the process and those of its group. How it ends does not matter.
func (p *process) stop() {
	_ = p.stdin.Close()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	timer := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
	_ = p.cmd.Wait()
	timer.Stop()
}

// self runs this program again with args and decodes the line that it prints.
func self(ctx context.Context, into any, args ...string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("load %s: %w", strings.Join(args, " "), err)
	}
	return json.Unmarshal(out, into)
}

// waitPort waits until somebody listens.
func waitPort(ctx context.Context, address string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("nobody listens on %s: %w", address, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// usage is what the kernel says of a process.
type usage struct {
	cpu         float64 // seconds
	rss         int64   // bytes
	descriptors int
}

// measure adds up the process and its children, each alone in parts.
func measure(pid int) (total usage, parts map[int]usage, err error) {
	parts = map[int]usage{}
	pids := append([]int{pid}, children(pid)...)
	for _, p := range pids {
		u, err := measureOne(p)
		if err != nil {
			return usage{}, nil, err
		}
		parts[p] = u
		total.cpu += u.cpu
		total.rss += u.rss
		total.descriptors += u.descriptors
	}
	return total, parts, nil
}

func children(pid int) []int {
	var out []int
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, f := range list {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread is gone
		}
		for _, s := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(out, n)
				out = append(out, children(n)...)
			}
		}
	}
	return out
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux.
const ticksPerSecond = 100

func measureOne(pid int) (usage, error) {
	stat, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fds, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	rollup, err3 := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err := errors.Join(err1, err2, err3); err != nil {
		return usage{}, err
	}
	u := usage{descriptors: len(fds)}
	// utime and stime are fields 14 and 15; the name, field 2, may hold spaces.
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return usage{}, fmt.Errorf("stat of %d: %q", pid, stat)
	}
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return usage{}, err
		}
		u.cpu += n / ticksPerSecond
	}
	for line := range strings.Lines(string(rollup)) {
		if kb, ok := strings.CutPrefix(line, "Rss:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			if err != nil {
				return usage{}, err
			}
			u.rss = n << 10
		}
	}
	return u, nil
}
