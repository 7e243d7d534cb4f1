package route

import (
	"fmt"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// BenchmarkFind10000Routes finds the last of 10,000 routes of one listener.
func BenchmarkFind10000Routes(b *testing.B) {
	const last = 9999
	hosts := func(format string) func(int) Rule {
		return func(i int) Rule {
			return Rule{Listeners: []string{"tcp.l"}, Hosts: []string{fmt.Sprintf(format, i)}}
		}
	}
	for _, shape := range []struct {
		name string
		rule func(int) Rule
		host string
		port uint16
	}{
		{"names", hosts("db%d.corp"), "db9999.corp", 5432},
		{"suffixes", hosts("*.h%d.corp"), "a.h9999.corp", 5432},
		{"globs by their beginning", hosts("db%d-*.corp"), "db9999-a.corp", 5432},
		{"globs by their end", hosts("*-db%d.corp"), "a-db9999.corp", 5432},
		{"globs by their middle", hosts("*-db%d-*"), "a-db9999-b.corp", 5432},
		{"networks", func(i int) Rule {
			return Rule{Listeners: []string{"tcp.l"}, Hosts: []string{fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)}}
		}, "10.39.15.1", 5432},
		{"ports", func(i int) Rule {
			return Rule{Listeners: []string{"tcp.l"}, Ports: []string{fmt.Sprint(i + 1)}}
		}, "a.corp", last + 1},
		{"ports of one host", func(i int) Rule {
			return Rule{Listeners: []string{"tcp.l"}, Hosts: []string{"d*.corp"}, Ports: []string{fmt.Sprint(i + 1)}}
		}, "db.corp", last + 1},
	} {
		b.Run(shape.name, func(b *testing.B) {
			var rules []Rule
			for i := range last + 1 {
				rules = append(rules, shape.rule(i))
			}
			table := New(rules)
			target := tunnel.Target{Host: shape.host, Port: shape.port}
			b.ReportAllocs()
			for b.Loop() {
				if n, _ := table.Find(Connection{Listener: "tcp.l", Target: target}); n != last {
					b.Fatal(n)
				}
			}
		})
	}
}
