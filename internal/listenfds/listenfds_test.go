package listenfds

import (
	"os"
	"strconv"
	"testing"
)

// TestTake: what the environment says, but for the descriptors themselves, which a
// process of its own is given in the engine's tests.
func TestTake(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		name, pid, count, names string
		fails                   bool
	}{
		{"nothing", "", "", "", false},
		{"another process's", "1", "2", "a:b", false},
		{"none", own, "0", "", false},
		{"no number", own, "many", "", true},
		{"a negative number", own, "-1", "", true},
		{"without an end", own, "1000000000", "", true},
		{"fewer names", own, "2", "a", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(envPID, c.pid)
			t.Setenv(envCount, c.count)
			t.Setenv(envNames, c.names)
			table, err := Take()
			if (err != nil) != c.fails || len(table.Names()) > 0 || table.Sockets("a") != nil {
				t.Errorf("%v, %v", table.Names(), err)
			}
			for _, name := range []string{envPID, envCount, envNames} {
				if _, is := os.LookupEnv(name); is {
					t.Errorf("%s is still there", name)
				}
			}
		})
	}
}
