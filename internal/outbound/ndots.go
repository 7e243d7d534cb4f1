package outbound

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/userfile"
)

const (
	resolvConf = "/etc/resolv.conf"
	// maxResolvConf bounds what is read of it, in bytes.
	maxResolvConf = 64 << 10
	// maxNdots is the most that counts (resolv.conf(5)).
	maxNdots = 15
	// resolvConfAge is how old may be what was read of it: as old as Go's resolver lets it
	// be.
	resolvConfAge = 5 * time.Second
)

// absolute returns host with the dot at its end that keeps the resolver from the search
// list of resolv.conf, if it has so many dots that the resolver begins with it as it is.
// Of any other name the list says which host it is.
func absolute(host string) string {
	if strings.HasSuffix(host, ".") || strings.Count(host, ".") < systemNdots() {
		return host
	}
	return host + "."
}

// system is what was last read of resolv.conf, which each lookup of a name needs.
var system struct {
	mu    sync.Mutex
	read  time.Time
	ndots int
}

func systemNdots() int {
	system.mu.Lock()
	defer system.mu.Unlock()
	if now := time.Now(); system.read.IsZero() || now.Sub(system.read) >= resolvConfAge {
		conf := "" // which is what the resolver goes by without the file
		if f, err := userfile.Read(resolvConf, maxResolvConf); err == nil {
			conf = string(f.Data)
		}
		system.read, system.ndots = now, ndots(conf)
	}
	return system.ndots
}

// ndots reads the option of that name (resolv.conf(5)).
func ndots(conf string) int {
	n := 1
	for line := range strings.Lines(conf) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "options" {
			continue
		}
		for _, option := range words[1:] {
			text, given := strings.CutPrefix(option, "ndots:")
			if value, err := strconv.Atoi(text); given && err == nil {
				n = min(max(value, 0), maxNdots)
			}
		}
	}
	return n
}
