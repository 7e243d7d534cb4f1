package soht

import (
	"encoding/binary"
	"net/url"
	"slices"
	"strconv"
	"sync"
)

// maxForm is what the server takes of a form, in encoded bytes; it answers a
// longer one with 400.
const maxForm = 200_000

// maxWriteSize is the largest write_size: three encoded bytes for each byte and
// the fields in front of them stay under maxForm.
const maxWriteSize = 64 << 10

// maxIDLength bounds the id that a server hands out, in digits.
const maxIDLength = 19

// encodedPairs holds, for each two bytes (the first in the low half of the
// index), their encoding in the low 48 bits, the first byte lowest, and its
// length in the high 8. A table of pairs (512 KiB, in the second-level cache)
// measured 1.6 to 2 GB/s, one of bytes 0.8. It is built at its first use: the
// program that holds this package runs much that encodes nothing.
var encodedPairs = sync.OnceValue(func() *[1 << 16]uint64 {
	const hex = "0123456789ABCDEF"
	var one [256]uint64
	var length [256]uint64
	for c := range one {
		if plain(byte(c)) {
			one[c], length[c] = uint64(c), 1
			continue
		}
		one[c], length[c] = uint64(hex[c&15])<<16|uint64(hex[c>>4])<<8|'#', 3
	}
	pairs := new([1 << 16]uint64)
	for i := range pairs {
		first, second := i&0xff, i>>8
		pairs[i] = one[first] | one[second]<<(8*length[first]) | (length[first]+length[second])<<56
	}
	return pairs
})

// plain says whether c stands for itself in a form's data: the printable bytes,
// 33 to 126, without the specification's list of exceptions. A semicolon is not
// on that list, but an intermediary that reads forms as HTML 4.01, appendix
// B.2.2 recommends would split the data there.
func plain(c byte) bool {
	switch c {
	case '%', '?', '@', '&', '=', '+', ':', '#', ';':
		return false
	}
	return c >= 33 && c <= 126
}

// appendData appends data as the field of that name holds it: '#' and two hex
// digits for what cannot stand for itself. It allocates only where dst has no
// room for the longest encoding.
func appendData(dst, data []byte) []byte {
	pairs := encodedPairs()
	n := len(dst)
	// A pair is stored as eight bytes, of which up to six count: hence the room
	// behind the longest encoding.
	dst = slices.Grow(dst, 3*len(data)+8)
	out := dst[:cap(dst)]
	for ; len(data) >= 8; data = data[8:] {
		w := binary.LittleEndian.Uint64(data)
		o := out[n : n+32]
		a, b, c, d := pairs[uint16(w)], pairs[uint16(w>>16)], pairs[uint16(w>>32)], pairs[uint16(w>>48)]
		// The masks change nothing; they spare the bounds checks.
		binary.LittleEndian.PutUint64(o, a)
		k := a >> 56
		binary.LittleEndian.PutUint64(o[k&7:], b)
		k += b >> 56
		binary.LittleEndian.PutUint64(o[k&15:], c)
		k += c >> 56
		binary.LittleEndian.PutUint64(o[k&31:][:8], d)
		n += int(k + d>>56)
	}
	for ; len(data) >= 2; data = data[2:] {
		v := pairs[binary.LittleEndian.Uint16(data)]
		binary.LittleEndian.PutUint64(out[n:], v)
		n += int(v >> 56)
	}
	out = out[:n]
	if len(data) == 1 {
		// With a plain second byte the pair's encoding is one longer than the
		// first's.
		v := pairs[uint16(data[0])|'a'<<8]
		for range v>>56 - 1 {
			out = append(out, byte(v))
			v >>= 8
		}
	}
	return out
}

// appendOpen appends the form that opens a connection. The login is left out
// where the user name is empty.
func appendOpen(dst []byte, host string, port uint16, username, password string) []byte {
	dst = append(dst, "action=open&host="...)
	dst = append(dst, url.QueryEscape(host)...)
	dst = append(dst, "&port="...)
	dst = strconv.AppendUint(dst, uint64(port), 10)
	if username != "" {
		dst = append(dst, "&username="...)
		dst = append(dst, url.QueryEscape(username)...)
		dst = append(dst, "&password="...)
		dst = append(dst, url.QueryEscape(password)...)
	}
	return dst
}

// appendAction appends the form of an action that carries nothing but the id.
func appendAction(dst []byte, action, id string) []byte {
	dst = append(dst, "action="...)
	dst = append(dst, action...)
	dst = append(dst, "&id="...)
	return append(dst, id...)
}

// appendWrite appends the form of write or readwrite. The server drops the
// connection where datalength is too large and cuts the data where it is too
// small.
func appendWrite(dst []byte, action, id string, data []byte) []byte {
	dst = appendAction(dst, action, id)
	dst = append(dst, "&datalength="...)
	dst = strconv.AppendInt(dst, int64(len(data)), 10)
	dst = append(dst, "&data="...)
	return appendData(dst, data)
}
