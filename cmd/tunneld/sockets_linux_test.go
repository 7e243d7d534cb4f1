package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// listeningInode returns the inode of the socket that listens on an address of
// IPv4, from the kernel's table.
func listeningInode(t *testing.T, address string) string {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	ip := a.IP.To4()
	// The address is in the machine's byte order, which is little-endian on
	// those that the tests run on.
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port)
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		const listen = "0A"
		if f := strings.Fields(line); len(f) > 9 && f[1] == local && f[3] == listen {
			return f[9]
		}
	}
	t.Fatalf("nothing listens on %s", address)
	return ""
}

// TestReloadLosesNoConnection reloads under clients that come and go without a
// pause: each is served, by the very same socket.
func TestReloadLosesNoConnection(t *testing.T) {
	s := startSapsocks(t, sapsocksemu.Options{})
	d := startDaemon(t, s.onprem(""))
	address := d.address(t, "tcp.db")
	inode := listeningInode(t, address)
	const clients = 4
	stop := make(chan struct{})
	results := make(chan error, clients)
	for range clients {
		go func() {
			for {
				select {
				case <-stop:
					results <- nil
					return
				default:
				}
				if err := visit(address); err != nil {
					results <- err
					return
				}
			}
		}()
	}
	for i := range 20 {
		// A new target name, a new upstream's hash, other limits.
		d.reload(t, strings.Replace(s.onprem(fmt.Sprintf("limits {\n max_connections = %d\n }", 100+i)),
			"proxy =", fmt.Sprintf("timeouts {\n connect = \"%ds\"\n }\n proxy =", 5+i), 1))
	}
	close(stop)
	for range clients {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if now := listeningInode(t, address); now != inode {
		t.Errorf("the socket is another: inode %s was %s", now, inode)
	}
	if failed := d.log.Matching("msg", "connection failed"); len(failed) > 0 {
		t.Errorf("%d connections failed, the first: %v", len(failed), failed[0])
	}
	if left := d.log.Matching("msg", "release of a generation"); len(left) > 0 {
		t.Errorf("generations were not released: %v", left)
	}
}

// visit makes a connection, has something echoed and ends it.
func visit(address string) error {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	b := make([]byte, 5)
	_, err = io.ReadFull(c, b)
	return err
}

// TestListenerThatHadToMoveIsNotDeaf: where a reload fails after a listener has
// made room for another address, it is bound again with all that it was.
func TestListenerThatHadToMoveIsNotDeaf(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := startSapsocks(t, sapsocksemu.Options{})
	config := func(address, more string) string {
		return s.upstream("") + listener("db", address, "db.corp:5432", "open = true") + more + route("all", "", "upstream.sapsocks.onprem")
	}
	d := startDaemon(t, config("127.0.0.1:0", ""))
	address := d.address(t, "tcp.db")
	_, port := splitAddress(address)
	tunnel := d.dial(t, "tcp.db")
	pingPong(t, tunnel, "before")
	for _, everywhere := range []string{"0.0.0.0:" + port, ":" + port, "[::]:" + port} {
		d.reloadFails(t, config(everywhere, listener("taken", taken.Addr().String(), "db.corp:5432", "")), "address already in use", `listener "tcp" "taken"`)
		pingPong(t, dialTCP(t, address), "bound again")
	}
	// And forth and back, where nothing is in the way.
	d.reload(t, config("0.0.0.0:"+port, ""))
	pingPong(t, dialTCP(t, address), "by the other address")
	d.reloadFails(t, config("127.0.0.1:"+port, listener("taken", taken.Addr().String(), "db.corp:5432", "")))
	pingPong(t, dialTCP(t, address), "the other address, bound again")
	d.reload(t, config("127.0.0.1:"+port, ""))
	pingPong(t, dialTCP(t, address), "as at first")
	pingPong(t, tunnel, "all the while")
	if failed := d.log.Matching("msg", "connection failed"); len(failed) > 0 {
		t.Errorf("%v", failed)
	}
}

// TestOverlappingSocketMakesWay: where an address is in use, the old listeners that
// do not overlap with it keep their sockets until the swap, and one that does is
// closed for it only once.
func TestOverlappingSocketMakesWay(t *testing.T) {
	b := startBackend(t)
	d := startDaemon(t, "upstream \"direct\" \"local\" {}\n"+listener("a", "127.0.0.1:0", b.addr, "")+route("all", "", "upstream.direct.local"))
	_, port := splitAddress(d.address(t, "tcp.a"))
	config := func(addresses ...string) string {
		text := "upstream \"direct\" \"local\" {}\n" + route("all", "", "upstream.direct.local")
		for i, a := range addresses {
			text += listener(fmt.Sprint("x", i), a+":"+port, b.addr, "")
		}
		return text
	}
	// One of the two is respelled, the others go.
	others := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"}
	for range 3 {
		d.reload(t, config(append(others, "127.0.0.1")...))
		d.reload(t, config("localhost"))
		dialTCP(t, "127.0.0.1:"+port)
		b.next(t)
	}

	// Another program's address with the same port: nobody here can make room.
	d.reload(t, config("127.0.0.1"))
	taken, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inode := listeningInode(t, "127.0.0.1:"+port)
	d.reloadFails(t, config("127.0.0.2"), "address already in use")
	if now := listeningInode(t, "127.0.0.1:"+port); now != inode {
		t.Errorf("the socket is another: inode %s was %s", now, inode)
	}
}
