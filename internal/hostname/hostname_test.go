package hostname

import (
	"net/url"
	"testing"
)

func TestASCII(t *testing.T) {
	for name, want := range map[string]string{
		"":                      "",
		"db.corp":               "db.corp",
		"DB.Corp.":              "DB.Corp.",
		"_sip.db-1":             "_sip.db-1",
		"10.0.0.1":              "10.0.0.1",
		"fd00::1":               "fd00::1",
		"bücher.example":        "xn--bcher-kva.example",
		"BÜCHER.Example.":       "xn--bcher-kva.example.",
		"bu\u0308cher.example":  "xn--bcher-kva.example", // a combining diaeresis
		"straße.example":        "xn--strae-oqa.example",
		"例え。テスト":                "xn--r8jz45g.xn--zckzah",
		"xn--bcher-kva.example": "xn--bcher-kva.example",
		"xn--bcher-kva.bücher":  "xn--bcher-kva.xn--bcher-kva",
		"ü b":                   "!",
		"ü_b":                   "!",
		"bücher\u2028":          "!",
		"-ü.example":            "!",
		"ü%a":                   "!",
		"ü:80":                  "!",
		"a\xff":                 "!",
		"ü\ufffd":               "!",
		"xn--a.bücher":          "!",
	} {
		got, err := ASCII(name)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestASCIIAddress(t *testing.T) {
	for address, want := range map[string]string{
		"bücher.example:80": "xn--bcher-kva.example:80", "[fd00::1]:80": "[fd00::1]:80", "db.corp.:80": "db.corp.:80", "bücher": "bücher", "ü b:80": "!",
	} {
		got, err := ASCIIAddress(address)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", address, got, err, want)
		}
	}
}

func TestUnicode(t *testing.T) {
	for name, want := range map[string]string{
		"db.corp": "db.corp", "xn--bcher-kva.example.": "bücher.example.", "XN--bcher-kva": "bücher", "xn--a": "xn--a",
	} {
		if got := Unicode(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestWithoutDot(t *testing.T) {
	for address, want := range map[string]string{"db.corp.:80": "db.corp:80", "db.corp:80": "db.corp:80", "[fd00::1]:80": "[fd00::1]:80", "db.corp.": "db.corp."} {
		if got := AddressWithoutDot(address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
	for text, want := range map[string]string{
		"http://db.corp./x": "db.corp", "http://db.corp.:81/": "db.corp:81", "https://[fd00::1]:81/": "[fd00::1]:81", "https://[fd00::1]/": "[fd00::1]",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := Header(u); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
