package nettest

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Zone is what a name server knows: addresses, separated by spaces, by name, which ends in a
// dot.
type Zone map[string]string

// ServeNames has a name server answer from a zone until the test ends, and returns its
// address, of UDP. hold, unless nil, is called with each question before that, and says
// whether there is an answer at all.
func ServeNames(t testing.TB, z Zone, hold func(dnsmessage.Question) bool) (address string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	t.Cleanup(func() { _ = pc.Close(); <-stopped })
	go func() {
		defer close(stopped)
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if err := q.Unpack(b[:n]); err != nil || len(q.Questions) != 1 {
				t.Errorf("a question that is none: %v", err)
				continue
			}
			answer := z.answer(t, q)
			go func() {
				if hold == nil || hold(q.Questions[0]) {
					_, _ = pc.WriteTo(answer, from) // the resolver may have gone
				}
			}()
		}
	}()
	return pc.LocalAddr().String()
}

// ResolverAt asks that name server alone.
func ResolverAt(server string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server)
	}}
}

func (z Zone) answer(t testing.TB, q dnsmessage.Message) []byte {
	asked := q.Questions[0]
	name := strings.ToLower(asked.Name.String())
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionDesired: q.RecursionDesired, RecursionAvailable: true}, Questions: q.Questions}
	if _, known := z[name]; !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, s := range strings.Fields(z[name]) {
		ip := netip.MustParseAddr(s)
		h := dnsmessage.ResourceHeader{Name: asked.Name, Type: asked.Type, Class: asked.Class, TTL: 1}
		switch {
		case asked.Type == dnsmessage.TypeA && ip.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: ip.As4()}})
		case asked.Type == dnsmessage.TypeAAAA && ip.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	b, err := m.Pack()
	if err != nil {
		t.Errorf("pack an answer: %v", err)
	}
	return b
}
