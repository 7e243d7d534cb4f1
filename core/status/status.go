// Package status holds the types of a daemon's status. The control socket serves them as
// JSON, and "tunneld status --json" prints them: within a major version fields are added,
// and none is renamed or removed. No field holds a secret, and a value belongs to whoever
// was given it. The package only describes: package core asks.
package status

import (
	"fmt"
	"strings"
	"time"
)

// Status is the daemon at one moment.
type Status struct {
	// Version is the program's: "1.2.0".
	Version string `json:"version"`
	// PID is the process's id.
	PID int `json:"pid"`
	// Started is when the daemon began to serve.
	Started time.Time `json:"started"`
	// Config is the configuration's path as given.
	Config string `json:"config"`
	// Watched: the daemon reloads by itself when a file of it changes.
	Watched bool `json:"watched"`
	// State is that of the daemon as a whole.
	State State `json:"state"`
	// Generation numbers the configuration in force, from 1; each try takes a number.
	Generation uint64 `json:"generation"`
	// Reload is the last try; nil: there was none since the start.
	Reload *Reload `json:"last_reload,omitempty"`
	// Reloads counts the tries since the start, FailedReloads those of them that failed.
	Reloads       uint64 `json:"reloads"`
	FailedReloads uint64 `json:"failed_reloads"`
	// LogDropped counts the lines of the log that were lost, since they could
	// not be written.
	LogDropped uint64 `json:"log_lines_dropped"`
	// Listeners and Upstreams are those of the configuration in force, in its order.
	Listeners []Listener `json:"listeners"`
	Upstreams []Upstream `json:"upstreams"`
	// Plugins have a process, or had one.
	Plugins []Plugin `json:"plugins"`
	// Pump is what moves the bytes.
	Pump Pump `json:"pump"`
}

// ReloadOptions are what a reload may do beyond the ordinary.
type ReloadOptions struct {
	// AllowEmpty lets it take all listeners away; otherwise that is an error.
	AllowEmpty bool
}

// Reload is the outcome of one reload.
type Reload struct {
	// At is when it began.
	At time.Time `json:"at"`
	// Duration is how long it took; nanoseconds in JSON.
	Duration time.Duration `json:"duration_ns"`
	// Generation is the one that was put in force, or that was tried.
	Generation uint64 `json:"generation"`
	// Error is empty where it succeeded; the old configuration stays in force
	// where it did not.
	Error string `json:"error,omitempty"`
	// Invalid: it failed because the configuration has errors, which Diagnostics
	// describes, and not because of the machine.
	Invalid bool `json:"invalid,omitempty"`
	// Diagnostics are the problems of the configuration as text, warnings included.
	Diagnostics string `json:"diagnostics,omitempty"`
	// Changes is what the reload changed, one sentence each, in the order of the
	// configuration; empty where nothing did.
	Changes []string `json:"changes,omitempty"`
}

// Listener is a listener that is served.
type Listener struct {
	// ID is its kind and name: "tcp.orders".
	ID string `json:"id"`
	// State is the daemon's where that is further on.
	State State `json:"state"`
	// Address is where it is bound, "127.0.0.1:5432"; the first of Addresses, empty where
	// all are lost.
	Address string `json:"address"`
	// Addresses are all that it is bound to: a name may have several.
	Addresses []string `json:"addresses"`
	// LostAddresses had to make room for a reload that failed then, and could not be bound
	// again.
	LostAddresses []string `json:"lost_addresses,omitempty"`
	// Target is where its connections go, "host:port" or a label; empty where the client
	// says it.
	Target string `json:"target,omitempty"`
	// Connections are open, from accept to close.
	Connections int `json:"connections"`
	// Tunnels are those of them that are established, by path.
	Tunnels map[string]int `json:"tunnels,omitempty"`
	// Certificates are those from files that the listener proves itself with.
	Certificates []Certificate `json:"certificates,omitempty"`
	// FileProblem is why what a followed file holds now is not in use, or not all of it.
	// Of what file() reads, and of certificates, what was before is still in force, of an
	// htpasswd file nothing is; empty where all is in use.
	FileProblem string `json:"file_problem,omitempty"`
}

// Upstream is an upstream of the configuration in force.
type Upstream struct {
	// ID is its type and name: "sapsocks.onprem".
	ID string `json:"id"`
	// State is the daemon's where that is further on.
	State State `json:"state"`
	// Health is "ok", "failing" or "unknown", as the plugin reports it; that of
	// a built-in upstream is "ok".
	Health string `json:"health"`
	// Message is why it is failing, in the plugin's words; may be empty.
	Message string `json:"message,omitempty"`
	// Unusable is why it is passed over while a route has another; nil: it is not.
	Unusable *Unusable `json:"unusable,omitempty"`
	// CredentialExpires is when the credential in use ends, CredentialRenewed when it was
	// last renewed; zero where there is none.
	CredentialExpires time.Time `json:"credential_expires,omitzero"`
	CredentialRenewed time.Time `json:"credential_renewed,omitzero"`
	// Connections are open through it, dials under way included; MaxConnections
	// is the limit, 0 where there is none, and Waiting the dials beyond it that
	// wait for a place.
	Connections    int `json:"connections"`
	MaxConnections int `json:"max_connections,omitempty"`
	Waiting        int `json:"waiting,omitempty"`
	// Unreleased tunnels have ended here, and the far end may still hold them,
	// since it has not answered to their end.
	Unreleased int `json:"unreleased,omitempty"`
	// Certificates are those from files that the upstream proves itself with.
	Certificates []Certificate `json:"certificates,omitempty"`
	// FileProblem is why what a followed file holds now is not in use, and what it
	// held before still is; empty where all are.
	FileProblem string `json:"file_problem,omitempty"`
}

// Certificate is one that is in use.
type Certificate struct {
	// File is the path as the user wrote it.
	File string `json:"file"`
	// NotAfter is when the first certificate of its chain ends.
	NotAfter time.Time `json:"not_after"`
}

// Unusable is why an upstream is passed over while a route has one that is not.
type Unusable struct {
	// Reason is "health": its plugin reports that it fails; "retry_after": a dial was
	// told to come back later; or "drained".
	Reason string `json:"reason"`
	// Until is when a dial tries it again; zero: not known.
	Until time.Time `json:"until,omitzero"`
	// Message is the reason in the plugin's or the far end's words; may be empty.
	Message string `json:"message,omitempty"`
}

// Plugin is a plugin's process, or what has become of it.
type Plugin struct {
	// Name is the type of its upstreams.
	Name string `json:"name"`
	// Version is as the plugin gives it; empty until it has.
	Version string `json:"version"`
	// Source is "bundled" or the program's path.
	Source string `json:"source"`
	// Status is "starting", "running", "backoff" (it has died and is started again after
	// a while), "crash_looping" (it keeps dying), "draining" or "stopped".
	Status string `json:"status"`
	// Since is when it came to that.
	Since time.Time `json:"since"`
	// PID is 0 where there is no process.
	PID int `json:"pid"`
	// Restarts counts the processes that were started after the first.
	Restarts int `json:"restarts"`
	// NextStart is when the next process is started; zero where none is due.
	NextStart time.Time `json:"next_start,omitzero"`
	// LastExit says how the last process that ended did, LastOutput is the end
	// of what it printed, at most 4 KiB.
	LastExit   string `json:"last_exit,omitempty"`
	LastOutput string `json:"last_output,omitempty"`
	// Refused is why its process does not take the configuration in force since
	// its restart; empty where it does. It is asked again until it does.
	Refused string `json:"refused,omitempty"`
	// Open is how many dials are under way and relays open.
	Open int `json:"open"`
	// Retired: the configuration in force does not use it. It drains, or a
	// reload is preparing it.
	Retired bool `json:"retired"`
}

// Pump is the data plane at one moment.
type Pump struct {
	// Tunnels are open.
	Tunnels int `json:"tunnels"`
	// Workers are those of the kernel pump, which share its tunnels; 0: this system has
	// no such pump.
	Workers int `json:"workers"`
	// Paused are directions of tunnels that wait for bandwidth.
	Paused int `json:"paused"`
	// PipesInUse and PipesIdle exist; PipesMade counts those that were made,
	// PipesRefused the tries that the system refused, PipesSmall those that it
	// made smaller than asked for.
	PipesInUse   int    `json:"pipes_in_use"`
	PipesIdle    int    `json:"pipes_idle"`
	PipesMade    uint64 `json:"pipes_made"`
	PipesRefused uint64 `json:"pipes_refused"`
	PipesSmall   uint64 `json:"pipes_small"`
	// BuffersInUse are pooled buffers that hold bytes now, or serve the portable
	// pump; BuffersMade counts those that were made.
	BuffersInUse int    `json:"buffers_in_use"`
	BuffersMade  uint64 `json:"buffers_made"`
}

// NotReady says why the daemon should get no new clients, one reason each; empty
// where it should.
func (s Status) NotReady() []string {
	var why []string
	if s.State.After(Serving) {
		why = append(why, "the daemon is stopping")
	}
	for _, p := range s.Plugins {
		switch {
		case p.Retired:
		case p.Status == "crash_looping":
			why = append(why, fmt.Sprintf("plugin %s keeps dying: %s", p.Name, p.LastExit))
		case p.Refused != "":
			why = append(why, fmt.Sprintf("plugin %s was restarted and no longer accepts its configuration: %s", p.Name, p.Refused))
		}
	}
	for _, l := range s.Listeners {
		if len(l.LostAddresses) > 0 {
			why = append(why, fmt.Sprintf("listener %s has lost %s, which could not be bound again after a reload that failed: see what holds it, and reload", l.ID, strings.Join(l.LostAddresses, ", ")))
		}
	}
	return why
}
