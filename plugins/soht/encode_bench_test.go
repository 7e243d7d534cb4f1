package soht

import (
	"bytes"
	"math/rand/v2"
	"net/url"
	"testing"
	"time"
)

// payloads are what the encoders are measured on.
func payloads() map[string][]byte {
	random := make([]byte, 32<<10)
	r := rand.NewChaCha8([32]byte{})
	r.Read(random)
	return map[string][]byte{
		"random": random,
		"zeros":  make([]byte, 32<<10),
		"text":   bytes.Repeat([]byte("SELECT id, name FROM orders WHERE id > 17;\r\n"), 745)[:32<<10],
	}
}

// BenchmarkEncode encodes one write of 32 KiB; its MB/s are of unencoded data.
// The metric x-url is how much faster it is than net/url's escape, measured in
// the same run.
func BenchmarkEncode(b *testing.B) {
	for name, data := range payloads() {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, 4*len(data))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				dst = appendWrite(dst[:0], "write", "17", data)
			}
			ours := float64(b.Elapsed()) / float64(b.N)
			s, rounds := string(data), 0
			start := time.Now()
			for ; rounds < 20 || time.Since(start) < 50*time.Millisecond; rounds++ {
				sink = url.QueryEscape(s)
			}
			b.ReportMetric(float64(time.Since(start))/float64(rounds)/ours, "x-url")
		})
	}
}

// BenchmarkCopy copies what BenchmarkEncode writes: the speed of memory.
func BenchmarkCopy(b *testing.B) {
	src, dst := make([]byte, 80<<10), make([]byte, 80<<10)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		copy(dst, src)
	}
}

var sink string
