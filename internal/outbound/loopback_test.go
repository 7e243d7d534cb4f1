package outbound

import "testing"

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.8.9.10": true, "::1": true, "::ffff:127.0.0.1": true, "localhost": true, "LocalHost": true,
		"localhost.": true, "app.localhost": true,
		"": false, "128.0.0.1": false, "0.0.0.0": false, "::": false, "127.0.0.1.example": false, "notlocalhost": false, "localhost.corp": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}
