//go:build interop

package interop

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// farEndEnv has the test binary be a far end for the benchmarks: a process of
// its own, so that its memory and its share of a core are not the plugin's.
const farEndEnv = "TUNNELD_AZRELAY_FAR_END"

// cipherSuite is what all three sides of a comparison use; TLS 1.2 lets a
// program choose it.
const cipherSuite = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256

// bulk is what one measurement moves, in bytes.
const bulk = 256 << 20

// farEnd is the far end as its parent knows it.
type farEnd struct{ wss, tls, ca string }

func startFarEnd(t testing.TB) farEnd {
	t.Helper()
	f := farEnd{ca: filepath.Join(t.TempDir(), "ca.pem")}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), farEndEnv+"="+f.ca)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It ends with its input.
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	if _, err := fmt.Fscan(bufio.NewReader(out), &f.wss, &f.tls); err != nil {
		t.Fatal(err)
	}
	return f
}

// runFarEnd serves until the parent is gone.
func runFarEnd(caFile string) error {
	config, err := selfSigned(caFile)
	if err != nil {
		return err
	}
	var addresses []string
	for _, serve := range []func(net.Conn) error{serveWebSocket, serveBare} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			return err
		}
		addresses = append(addresses, l.Addr().String())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					if err := serve(c); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
						fmt.Fprintln(os.Stderr, "far end:", err)
					}
				}()
			}
		}()
	}
	fmt.Println(strings.Join(addresses, " "))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// serveWebSocket takes what comes, sends bulk, or both, as the path says. It
// unmasks nothing: the far end's share is the same as the bare connection's.
func serveWebSocket(c net.Conn) error {
	path := ""
	u := ws.Upgrader{OnRequest: func(uri []byte) error { path = string(uri); return nil }}
	if _, err := u.Upgrade(c); err != nil {
		return err
	}
	way, _, _ := strings.Cut(strings.TrimPrefix(path, "/$hc/"), "?")
	sent := make(chan error, 1)
	go func() {
		if way != "down" && way != "both" {
			sent <- nil
			return
		}
		sent <- sendFrames(c)
	}()
	_, err := takeFrames(c, way == "idle")
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	if err == nil {
		_, err = c.Write(closing)
	}
	return err
}

// closing ends the far end's direction. After a download the other side's Close
// comes first: it counts what it has.
var closing = ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))

func sendFrames(c net.Conn) error {
	frame := ws.MustCompileFrame(ws.NewBinaryFrame(make([]byte, 64<<10)))
	for range bulk / (64 << 10) {
		if _, err := c.Write(frame); err != nil {
			return err
		}
	}
	return nil
}

// takeFrames reads up to a Close frame. With echo it sends as much back.
func takeFrames(c net.Conn, echo bool) (n int64, err error) {
	br := bufio.NewReaderSize(c, 64<<10)
	for {
		h, err := ws.ReadHeader(br)
		if err != nil {
			return n, err
		}
		if _, err := io.CopyN(io.Discard, br, h.Length); err != nil {
			return n, err
		}
		n += h.Length
		switch {
		case h.OpCode == ws.OpClose:
			return n, nil
		case echo && h.OpCode == ws.OpBinary:
			if _, err := c.Write(ws.MustCompileFrame(ws.NewBinaryFrame(make([]byte, h.Length)))); err != nil {
				return n, err
			}
		}
	}
}

// serveBare is the same without WebSocket; the first byte says which.
func serveBare(c net.Conn) error {
	var way [1]byte
	if _, err := io.ReadFull(c, way[:]); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		if way[0] == 'u' {
			sent <- nil
			return
		}
		p := make([]byte, 64<<10)
		for range bulk / len(p) {
			if _, err := c.Write(p); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{c}, make([]byte, 64<<10))
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	return err
}

// selfSigned makes a certificate and writes it to a file.
func selfSigned(file string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MaxVersion:   tls.VersionTLS12, CipherSuites: []uint16{cipherSuite},
		DynamicRecordSizingDisabled: true,
	}, nil
}
