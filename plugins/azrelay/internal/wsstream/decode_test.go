package wsstream

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/gobwas/ws"
)

// whole decodes with the library alone what the decoder does in pieces.
func whole(b []byte) (data []byte, end error) {
	r := bytes.NewReader(b)
	state := ws.StateClientSide
	for {
		h, err := ws.ReadHeader(r)
		if err != nil {
			return data, errMore(err)
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return data, err
		}
		payload := make([]byte, min(h.Length, int64(r.Len())))
		_, _ = io.ReadFull(r, payload)
		short := int64(len(payload)) < h.Length
		switch {
		case h.OpCode.IsControl():
			if short {
				return data, errPartial
			}
			if h.OpCode == ws.OpClose {
				return data, closed(payload)
			}
		default:
			data = append(data, payload...)
			state = ws.StateClientSide
			if !h.Fin {
				state = state.Set(ws.StateFragmented)
			}
		}
		if short {
			return data, errPartial
		}
	}
}

// errPartial is no end: the bytes were not enough for one.
var errPartial = errors.New("partial")

func errMore(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errPartial
	}
	return err
}

func FuzzDecode(f *testing.F) {
	frames := func(fs ...ws.Frame) (b []byte) {
		for _, f := range fs {
			b = append(b, ws.MustCompileFrame(f)...)
		}
		return b
	}
	f.Add([]byte{1, 2, 3}, frames(ws.NewBinaryFrame([]byte("hello")), ws.NewPingFrame([]byte("p")), ws.NewCloseFrame(nil)))
	f.Add([]byte{0}, frames(ws.NewFrame(ws.OpText, false, []byte("a")), ws.NewPongFrame(nil), ws.NewFrame(ws.OpContinuation, true, []byte("b"))))
	f.Add([]byte{7}, frames(ws.NewBinaryFrame(make([]byte, 300)), ws.NewBinaryFrame(make([]byte, 70000))))
	f.Add([]byte{1}, frames(ws.NewCloseFrame(ws.NewCloseFrameBody(1008, "expired")), ws.NewBinaryFrame([]byte("after"))))
	f.Add([]byte{2}, frames(ws.MaskFrame(ws.NewBinaryFrame([]byte("masked")))))
	f.Add([]byte{3}, []byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, cuts, b []byte) {
		want, wantEnd := whole(b)
		var d decoder
		var got []byte
		var end error
		rest := bytes.Clone(b)
		for i := 0; len(rest) > 0 && end == nil; i++ {
			n := len(rest)
			if len(cuts) > 0 {
				n = min(n, int(cuts[i%len(cuts)])+1)
			}
			var m int
			m, end = d.decode(rest[:n], func(_ ws.OpCode, p []byte) {
				if len(p) > ws.MaxControlFramePayloadSize {
					t.Errorf("a control frame of %d bytes", len(p))
				}
			})
			got = append(got, rest[:m]...)
			rest = rest[n:]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("decoded %d bytes, want %d", len(got), len(want))
		}
		switch {
		case wantEnd == errPartial:
			if end != nil {
				t.Errorf("ended with %v", end)
			}
		case end == nil || errors.Unwrap(end) != nil && !errors.Is(end, wantEnd) || (end == io.EOF) != (wantEnd == io.EOF):
			t.Errorf("ended with %v, want %v", end, wantEnd)
		}
	})
}

func FuzzAppendFrame(f *testing.F) {
	f.Add([]byte("payload"))
	f.Add(make([]byte, maxPayload))
	f.Fuzz(func(t *testing.T, p []byte) {
		p = p[:min(len(p), maxPayload)]
		b, err := appendFrame(nil, ws.OpBinary, p)
		if err != nil {
			t.Fatal(err)
		}
		r := bytes.NewReader(b)
		h, err := ws.ReadHeader(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.CheckHeader(h, ws.StateServerSide); err != nil || !h.Fin || h.Length != int64(len(p)) {
			t.Fatalf("header %+v: %v", h, err)
		}
		got, _ := io.ReadAll(r)
		ws.Cipher(got, h.Mask, 0)
		if !bytes.Equal(got, p) {
			t.Error("the payload is another one")
		}
	})
}
