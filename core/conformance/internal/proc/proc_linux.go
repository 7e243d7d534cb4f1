// Package proc inspects other processes: what they started, and what they have open.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Process names a process for as long as it lives: numbers are used again.
type Process struct {
	pid   int
	start string // clock ticks since the system's start
	name  string
}

func (p Process) String() string { return fmt.Sprintf("%s (process %d)", p.name, p.pid) }

// alive says whether it runs; one that has ended and was not collected does not.
func (p Process) Alive() bool {
	s, err := stat(p.pid)
	return err == nil && s.start == p.start && s.state != "Z"
}

func (p Process) Kill() {
	if p.Alive() {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

type procStat struct {
	name, state, start string
	parent, group      int
}

// stat reads /proc/PID/stat: see proc(5).
func stat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name is in parentheses and may hold anything.
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return procStat{}, errors.New("not a stat file")
	}
	f := strings.Fields(string(b[to+1:]))
	if len(f) < 20 {
		return procStat{}, errors.New("not a stat file")
	}
	parent, _ := strconv.Atoi(f[1])
	group, _ := strconv.Atoi(f[2])
	return procStat{name: string(b[from+1 : to]), state: f[0], start: f[19], parent: parent, group: group}, nil
}

// Family returns what a process started and is not its child only, and the
// rest of its group.
func Family(pid int) []Process {
	all := map[int]procStat{}
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		n, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if s, err := stat(n); err == nil {
			all[n] = s
		}
	}
	family := map[int]bool{pid: true}
	for grown := true; grown; {
		grown = false
		for n, s := range all {
			if !family[n] && (family[s.parent] || s.group == pid) {
				family[n], grown = true, true
			}
		}
	}
	var found []Process
	for n := range family {
		if s, ok := all[n]; ok && n != pid {
			found = append(found, Process{pid: n, start: s.start, name: s.name})
		}
	}
	return found
}

// Descriptors returns what a process has open: the links by number.
func Descriptors(pid int) (map[string]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	open := map[string]string{}
	for _, e := range entries {
		if link, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open[e.Name()] = link
		}
	}
	return open, nil
}

// Supported says whether processes and their descriptors can be looked at here.
const Supported = true

// Connections returns the TCP connections of this machine that have the
// address at an end, those included that have ended and are waited out.
func Connections(address string) map[string]bool {
	found := map[string]bool{}
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return found
	}
	want = netip.AddrPortFrom(want.Addr().Unmap(), want.Port())
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			// Listening sockets are no connections.
			if len(f) > 3 && f[3] != "0A" && (kernelAddress(f[1]) == want || kernelAddress(f[2]) == want) {
				found[f[1]+" "+f[2]] = true
			}
		}
	}
	return found
}

// kernelAddress reads "0100007F:1F90": words in the machine's order, which is
// little endian on what the project runs on.
func kernelAddress(s string) netip.AddrPort {
	host, port, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || len(host)%8 != 0 {
		return netip.AddrPort{}
	}
	var b []byte
	for i := 0; i < len(host); i += 8 {
		word, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}
		}
		b = append(b, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	ip, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n))
}
