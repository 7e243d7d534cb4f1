package splice

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/fdtest"
)

// transfer sends size random bytes each way at once, checks them, and ends the
// tunnel.
func transfer(t *testing.T, r *rig, size int) Result {
	t.Helper()
	body := stream(rand.New(rand.NewPCG(1, uint64(size))), size)
	var wg sync.WaitGroup
	for _, c := range []halfCloser{r.client, r.upstream} {
		wg.Go(func() {
			if _, err := c.Write(body); err != nil {
				t.Errorf("write: %v", err)
			}
			if c == r.upstream {
				r.halfCloseUpstream(t)
			} else if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes that differ from the %d that were sent, or %v", len(got), size, err)
			}
		})
	}
	wg.Wait()
	if r.relay != nil {
		r.relay.end(nil)
	}
	return r.wait(t)
}

// TestSpliceRuns: the counts say that most bytes of a large transfer never came
// to this process; and without asking the pump, while the client reads slowly,
// bytes are seen to wait in a pipe, where nothing but splice could have put them.
func TestSpliceRuns(t *testing.T) {
	for _, s := range []shape{{}, {relay: true}} {
		name := "direct"
		if s.relay {
			name = "relay"
		}
		t.Run(name, func(t *testing.T) {
			const size = 64 << 20
			var traffic tunnel.Traffic
			s.traffic = &traffic
			p := newPump(t)
			res := transfer(t, newRig(t, p.Start, s), size)
			if res.Err != nil || sum(&traffic.Up) != size || sum(&traffic.Down) != size {
				t.Errorf("result %+v, counted %d up, %d down", res, sum(&traffic.Up), sum(&traffic.Down))
			}
			up, down := traffic.Up.Spliced.Load(), traffic.Down.Spliced.Load()
			t.Logf("of %d bytes each way %d up and %d down were spliced", size, up, down)
			if up < size/2 || down < size/2 {
				t.Errorf("spliced %d up, %d down of %d", up, down, size)
			}

			blocked := newRig(t, p.Start, s)
			var sending sync.WaitGroup
			defer sending.Wait()
			sending.Go(func() { _, _ = io.Copy(blocked.upstream, zeros{}) }) // until it is closed
			// What was written last may have been copied, and waits in a buffer.
			b := make([]byte, 256<<10)
			for deadline := time.Now().Add(20 * time.Second); bytesInPipes(t) == 0; {
				if _, err := io.ReadFull(blocked.client, b); err != nil || time.Now().After(deadline) {
					t.Fatalf("no bytes in any pipe, %v", err)
				}
			}
			p.Kill()
			blocked.wait(t)
			_ = blocked.upstream.Close()
		})
	}
}

// bytesInPipes counts what waits in this process's pipes.
func bytesInPipes(t *testing.T) (total int) {
	t.Helper()
	for _, name := range fdtest.Pipes(t) {
		fd, err := strconv.Atoi(name)
		if err != nil {
			t.Fatal(err)
		}
		if fd <= 2 {
			continue // whatever runs the test reads those
		}
		if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil {
			total += n
		}
	}
	return total
}

// unprivileged is set in the process that TestShrunkenPipes starts.
const unprivileged = "TUNNELD_TEST_UNPRIVILEGED"

// TestShrunkenPipes runs the pump as a user whose pipes are so many that the
// kernel makes new ones as small as it ever does.
func TestShrunkenPipes(t *testing.T) {
	if os.Getenv(unprivileged) != "" {
		shrunkenPipes(t)
		return
	}
	// By this name the program is found also where its folder is closed to
	// others.
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestShrunkenPipes$", "-test.v", "-test.timeout=50s")
	cmd.Env = append(os.Environ(), unprivileged+"=1")
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func shrunkenPipes(t *testing.T) {
	small := 0
	for small == 0 {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, 1<<20); err == nil {
			continue
		}
		size, err := unix.FcntlInt(uintptr(fds[1]), unix.F_GETPIPE_SZ, 0)
		if err != nil {
			t.Fatal(err)
		}
		if size <= 2*os.Getpagesize() {
			small = size
		}
	}
	p := newPump(t)
	for _, s := range []shape{{}, {relay: true}} {
		var traffic tunnel.Traffic
		s.traffic = &traffic
		if res := transfer(t, newRig(t, p.Start, s), 32<<20); res.Err != nil {
			t.Errorf("result %+v", res)
		}
		t.Logf("pipes of %d bytes, %d bytes spliced, %d copied", small, traffic.Up.Spliced.Load(), traffic.Up.Copied.Load())
	}
	if s := p.Stats(); s.PipesSmall == 0 {
		t.Errorf("%+v, want small pipes", s)
	}
}

// exhaust takes all descriptors; what it returns gives them back.
func exhaust(t *testing.T) func() {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(descriptors(t) + 20)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var taken []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EMFILE {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, fd)
	}
	back := sync.OnceFunc(func() {
		for _, fd := range taken {
			_ = unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(back)
	return back
}

// TestNoDescriptors: a tunnel for which there are none is pumped by goroutines,
// and the next by the kernel again.
func TestNoDescriptors(t *testing.T) {
	p := newPump(t)
	var back func()
	r := newRig(t, p.Start, shape{before: func(*rig, net.Conn, net.Conn) { back = exhaust(t) }})
	write(t, r.client, "x")
	read(t, r.upstream, "x")
	portables := 0
	p.portable.each(func(*flow) { portables++ })
	back()
	if portables != 1 {
		t.Errorf("%d tunnels are pumped by goroutines, want 1", portables)
	}
	if res := transfer(t, r, 1<<20); res.Err != nil {
		t.Errorf("result %+v", res)
	}
	r = newRig(t, p.Start, shape{})
	p.portable.each(func(*flow) { t.Error("the next tunnel is pumped by goroutines as well") })
	if res := transfer(t, r, 1<<20); res.Err != nil {
		t.Errorf("result %+v", res)
	}
}

// TestNoPipes: where none can be made bytes are copied, until one can.
func TestNoPipes(t *testing.T) {
	p := newPump(t)
	var traffic tunnel.Traffic
	r := newRig(t, p.Start, shape{traffic: &traffic})
	write(t, r.client, "x")
	read(t, r.upstream, "x")
	back := exhaust(t)
	body := stream(rand.New(rand.NewPCG(1, 1)), 8<<20)
	var sending sync.WaitGroup
	exchange := func() {
		sending.Go(func() {
			if _, err := r.client.Write(body); err != nil {
				t.Error(err)
			}
		})
		read(t, r.upstream, string(body))
		sending.Wait()
	}
	exchange()
	back()
	if s := p.Stats(); s.PipesRefused == 0 || s.PipesMade != 0 {
		t.Errorf("%+v, want a refused pipe and none made", s)
	}
	for deadline := time.Now().Add(20 * time.Second); p.Stats().PipesMade == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no pipe is made again")
		}
		exchange()
	}
	if err := r.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r.closeUpstream(t)
	if res := r.wait(t); res.Err != nil || res.Up != sum(&traffic.Up) || traffic.Up.Copied.Load() < int64(len(body)) {
		t.Errorf("result %+v, %d spliced, %d copied", res, traffic.Up.Spliced.Load(), traffic.Up.Copied.Load())
	}
}

// TestIdleTunnels: what the pump itself holds for one, and that this is two
// descriptors and little memory: its struct, and some for what the runtime does
// meanwhile.
func TestIdleTunnels(t *testing.T) {
	const n, most = 2000, 300
	p := newPump(t)
	rates := NewRates(&Rate{}, &Rate{}, &Rate{})
	var far []int
	defer func() {
		for _, fd := range far {
			_ = unix.Close(fd)
		}
	}()
	// hold makes n tunnels and returns what each costs.
	hold := func() (memory, held int) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		open := descriptors(t)
		for range n {
			p.Start(Tunnel{Rates: rates, Client: tunnel.End{Stream: halfPair(t, &far)}, Upstream: tunnel.End{Stream: halfPair(t, &far)}})
		}
		for _, w := range p.kernel.workers {
			settle(w)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		return (int(after.HeapAlloc) - int(before.HeapAlloc)) / n, (descriptors(t)-open)/n - 2
	}
	far = make([]int, 0, 4*n)
	memory, held := hold()
	t.Logf("%d bytes and %d descriptors a tunnel; its struct has %d bytes", memory, held, unsafe.Sizeof(slot{}))
	if memory > most || held != 2 {
		t.Errorf("%d bytes and %d descriptors a tunnel, want at most %d and 2", memory, held, most)
	}
	p.Kill()
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if memory, _ := hold(); memory > 16 {
		t.Errorf("%d bytes more for each tunnel after there were as many before", memory)
	}
}

// settle returns once the worker has taken all messages before.
func settle(w *worker) {
	for w.queued.Load() || !w.asleep.Load() {
		runtime.Gosched()
	}
}

// halfPair returns one end of a socketpair; the other goes to far.
func halfPair(t *testing.T, far *[]int) net.Conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "pair")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	*far = append(*far, fds[1])
	return c
}
