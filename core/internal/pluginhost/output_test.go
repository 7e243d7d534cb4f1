package pluginhost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func testOutput() (*output, *bytes.Buffer) {
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, nil))
	return newOutput(log, newLogged(log, nil)), &b
}

func TestOutputBounds(t *testing.T) {
	o, b := testOutput()
	o.copy(strings.NewReader(strings.Repeat("x", 10*maxLine)+"\nnext\n\n\r\nlast"), "stderr")
	var got []string
	for line := range strings.Lines(b.String()) {
		var m struct{ Line string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Line)
	}
	if len(got) != 3 || len(got[0]) != maxLine || got[1] != "next" || got[2] != "last" {
		t.Errorf("lines %.40q", got)
	}
	if tail := o.last(); len(tail) > maxTail || !strings.HasSuffix(tail, "x\nnext\nlast") {
		t.Errorf("tail of %d bytes", len(tail))
	}
}

func TestLineWriter(t *testing.T) {
	o, b := testOutput()
	w := o.writer("stdout")
	for _, part := range []string{"on", "e\ntwo\nth", "", "ree", "\n", strings.Repeat("y", 3*maxLine), "\nend\n"} {
		if n, err := io.WriteString(w, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := o.last(); !strings.HasSuffix(got, "y\nend") {
		t.Errorf("tail %.40q", got)
	}
	for _, want := range []string{`"line":"one"`, `"line":"two"`, `"line":"three"`, `"line":"end"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %.200s", want, b)
		}
	}
}

// TestAllowance floods the log: the burst is logged, then the rate, and what
// was dropped is counted.
func TestAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, b := testOutput()
		flood := func(n int) {
			for i := range n {
				o.line(fmt.Appendf(nil, "line %d", i), "stderr")
			}
		}
		flood(1000)
		if n := strings.Count(b.String(), `"line"`); n != int(newLogged(nil, nil).plain.burst) {
			t.Errorf("%d lines at once", n)
		}
		time.Sleep(time.Second)
		flood(1000)
		if n := strings.Count(b.String(), `"line":"line`); n != int(newLogged(nil, nil).plain.burst+newLogged(nil, nil).plain.rate) {
			t.Errorf("%d lines after a second", n)
		}
		if !strings.Contains(b.String(), `"lines":900`) {
			t.Error("what was dropped is not told")
		}
		// The log of the plugin has its own allowance.
		o.line([]byte(`{"level":"INFO","msg":"still here"}`), "stderr")
		if !strings.Contains(b.String(), "still here") {
			t.Error("a log line was dropped")
		}
		time.Sleep(time.Hour)
		b.Reset()
		flood(1000)
		if n := strings.Count(b.String(), `"line":"line`); n != int(newLogged(nil, nil).plain.burst) {
			t.Errorf("%d lines after an hour", n)
		}
	})
}

func TestReadLine(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"INFO","msg":"m"}`:                                            `level=INFO msg=m`,
		`{"time":"x","level":"WARN+1","msg":"m","a":1,"b":1.5,"c":null}`:        `level=WARN+1 msg=m a=1 b=1.5 c=null`,
		`{"level":"ERROR","msg":"m","g":{"h":{"i":{"j":{"k":1}}}},"s":"a b"}`:   `level=ERROR msg=m g.h.i.j="{\"k\":1}" s="a b"`,
		`{"level":"INFO","msg":"m","plugin":"forged","msg2":"x","level2":true}`: `level=INFO msg=m msg2=x level2=true`,
		`{"level":"INFO","msg":"m","n":123456789012345678901234567890}`:         `level=INFO msg=m n=1.2345678901234568e+29`,
		`{"level":"LOUD","msg":"m"}`:                                            "",
		`{"level":7,"msg":"m"}`:                                                 "",
		`{"level":"INFO","msg":["m"]}`:                                          "",
		`{"level":"INFO"}`:                                                      "",
		`{"msg":"m"}`:                                                           "",
		`{"@message":1}`:                                                        "",
		`{"level":"INFO","msg":"m"} x`:                                          "",
		`[]`:                                                                    "",
		`null`:                                                                  "",
	} {
		l := readLine([]byte(line), "stderr")
		if !l.IsLog {
			if want != "" {
				t.Errorf("%s: not a log line", line)
			}
			continue
		}
		var b bytes.Buffer
		h := slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
		slog.New(h).LogAttrs(t.Context(), l.Level, l.Message, l.Attrs...)
		if got := strings.TrimSpace(b.String()); got != want {
			t.Errorf("%s: logged %q, want %q", line, got, want)
		}
	}
}

// TestTailIsForPeople: what an error shows is there whatever the log takes, and
// as people read it.
func TestTailIsForPeople(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	o := newOutput(log, newLogged(log, nil))
	o.copy(strings.NewReader(`{"time":"x","level":"ERROR","msg":"the plugin cannot be served","err":"schema: type uint16"}
{"level":"ERROR","msg":"the plugin panicked","doing":"dial","panic":"oops","stack":"goroutine 1"}
{"level":"WARN","msg":"printed by the plugin","text":"hello"}
{"level":"INFO","msg":"started","port":7}
{"level":"DEBUG","msg":"a detail"}
plain
`), "stderr")
	want := "the plugin cannot be served: schema: type uint16\nthe plugin panicked: oops\nprinted by the plugin: hello\nstarted\nplain"
	if got := o.last(); got != want {
		t.Errorf("tail %q, want %q", got, want)
	}
}

// TestTelling: a panic says more than what follows it, and the log says nothing
// of an end.
func TestTelling(t *testing.T) {
	for in, want := range map[string]string{
		"one\ntwo\n": "two",
		"one\n{\"level\":\"INFO\",\"msg\":\"m\"}\n":     "one",
		"one\npanic: oops\n\ngoroutine 1\n":             "panic: oops",
		"fatal error: out of memory\nx\n":               "fatal error: out of memory",
		"panic: a" + strings.Repeat("\nframe", maxTail): "panic: a",
		"{\"level\":\"INFO\",\"msg\":\"m\"}\n":          "",
		strings.Repeat("x", 2*maxCause) + "\n":          strings.Repeat("x", maxCause),
	} {
		o, _ := testOutput()
		o.copy(strings.NewReader(in), "stderr")
		if got := o.causeLine(); got != want {
			t.Errorf("%.40q: %q, want %q", in, got, want)
		}
	}
}

// TestUnwantedLinesCostNothing: what the level in force leaves out takes nothing of
// the allowance of what it does not.
func TestUnwantedLinesCostNothing(t *testing.T) {
	o, b := testOutput() // at info
	for range 2 * int(newLogged(nil, nil).lines.burst) {
		o.line([]byte(`{"level":"DEBUG","msg":"a detail"}`), "stderr")
	}
	o.line([]byte(`{"level":"INFO","msg":"wanted"}`), "stderr")
	if got := b.String(); !strings.Contains(got, "wanted") || strings.Contains(got, "dropped") || strings.Contains(got, "detail") {
		t.Errorf("log %.300s", got)
	}
}

// FuzzOutput has whatever a plugin may print logged: each line of the log is
// well-formed, and nothing panics.
func FuzzOutput(f *testing.F) {
	for _, s := range []string{
		"plain\n", `{"@message":1}`, `{"level":"INFO","msg":"m","a":{"b":[1,{"c":null}]}}` + "\n", "{\"level\":\"DEBUG\",\"msg\":\"\xff\"}\n", "\x00\r\n\r",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		o, b := testOutput()
		o.copy(bytes.NewReader(in), "stderr")
		for line := range strings.Lines(b.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("logged %q", line)
			}
		}
		if len(o.last()) > 3*maxTail || !utf8.ValidString(o.last()) {
			t.Errorf("tail %q", o.last())
		}
	})
}

func TestBackoff(t *testing.T) {
	b := Backoff{Min: 500 * time.Millisecond, Max: 30 * time.Second}
	for n, want := range map[int]time.Duration{0: 0, 1: 0, 2: 500 * time.Millisecond, 3: time.Second, 4: 2 * time.Second, 8: 30 * time.Second, 1000: 30 * time.Second} {
		for range 50 {
			if d := b.delay(n); d > want || d < want*3/4 {
				t.Errorf("delay %d is %s, want up to %s", n, d, want)
			}
		}
	}
}
