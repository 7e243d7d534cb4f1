package nodump

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestNotInATestBinary: nothing is set, whatever the environment says.
func TestNotInATestBinary(t *testing.T) {
	for _, value := range []string{"", "1"} {
		t.Setenv(Env, value)
		var before, after unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &before); err != nil {
			t.Fatal(err)
		}
		if lifted, err := Protect(); err != nil || lifted {
			t.Errorf("%t, %v", lifted, err)
		}
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &after); err != nil || before != after {
			t.Errorf("the limit of core files was %+v and is %+v, %v", before, after, err)
		}
		if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n != 1 {
			t.Errorf("dumpable is %d, %v", n, err)
		}
	}
}
