package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// report is what happened, and what must not.
type report struct {
	mu       sync.Mutex
	events   map[string]int
	across   map[string]int // tunnels that were open at the event
	broken   []string       // promises
	ended    map[string]int // tunnels by path, cleanly
	bytes    int64
	allowed  int // relay tunnels that died with their plugin
	failed0  int // new connections that failed while their plugin was away
	dials    []time.Duration
	usages   [][2]usage
	outcomes map[string]int // of reloads
}

func newReport() *report {
	return &report{events: map[string]int{}, across: map[string]int{}, ended: map[string]int{}, outcomes: map[string]int{}}
}

func (r *report) event(kind string, open int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[kind]++
	r.across[kind] += open
}

// breach notes a promise that was broken.
func (r *report) breach(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (r *report) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.broken) > 0
}

func (r *report) line() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := 0
	for _, n := range r.ended {
		total += n
	}
	return fmt.Sprintf("%d tunnels ended cleanly, %d died with their plugin, %d promises broken", total, r.allowed, len(r.broken))
}

func (r *report) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Printf("\n| event | how often | tunnels open then |\n|---|---|---|\n")
	for _, kind := range sorted(r.events) {
		fmt.Printf("| %s | %d | %d |\n", kind, r.events[kind], r.across[kind])
	}
	fmt.Printf("\n| tunnels | |\n|---|---|\n")
	for _, path := range sorted(r.ended) {
		fmt.Printf("| %s, ended cleanly, each byte checked at both ends | %d |\n", path, r.ended[path])
	}
	fmt.Printf("| relay, died with their plugin, with an error at both ends | %d |\n", r.allowed)
	fmt.Printf("| new connections that failed while their plugin was away | %d |\n", r.failed0)
	fmt.Printf("| MiB checked | %d |\n", r.bytes>>20)
	if n := len(r.dials); n > 0 {
		slices.Sort(r.dials)
		fmt.Printf("| time to a tunnel, p50 and p99 | %s, %s |\n", r.dials[n/2].Round(10*time.Microsecond), r.dials[n*99/100].Round(10*time.Microsecond))
	}
	for _, u := range r.usages {
		fmt.Printf("| descriptors, goroutines, plugin processes, resident MiB | %s → %s |\n", u[0], u[1])
	}
	fmt.Printf("| promises broken | %d |\n", len(r.broken))
	if len(r.broken) > 0 {
		fmt.Printf("\n%s\n", strings.Join(r.broken[:min(len(r.broken), 40)], "\n"))
	}
}

func (u usage) String() string {
	return fmt.Sprintf("%d, %d, %d, %d", u.descriptors, u.goroutines, u.processes, u.memory>>20)
}

func sorted(m map[string]int) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
