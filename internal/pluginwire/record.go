package pluginwire

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// RecordSize is the length of every record in bytes.
const RecordSize = 256

// The layout of a record; numbers are big endian.
//
//	0   version, 1
//	1   kind
//	2   path (Handoff) or status (End): 0 where neither applies
//	3   length of the text in bytes, at most 244
//	4   token, 8 bytes
//	12  text in UTF-8, padded with zeros
const (
	recordVersion = 1
	textOffset    = 12
	// MaxText bounds a record's text in bytes.
	MaxText = RecordSize - textOffset
)

// Kind is what a record says.
type Kind uint8

const (
	// Handoff carries the descriptor of the dial that the token names, from the
	// plugin to the daemon.
	Handoff Kind = 1
	// EOF announces, from either side, that the sender is about to end its
	// direction of a relay tunnel cleanly. An end of file on the relay's
	// socket without it is an error.
	EOF Kind = 2
	// End says, from the plugin, how a relay tunnel ends; it precedes the close
	// of the plugin's end. A clean End implies EOF.
	End Kind = 3
	// Abort says, from the daemon, that a relay tunnel ends without a clean
	// close; it precedes the close of the daemon's end.
	Abort Kind = 4
)

// Path of a Handoff.
const (
	PathDirect uint8 = 1
	PathRelay  uint8 = 2
)

// Status of an End.
const (
	StatusClean uint8 = 0
	StatusError uint8 = 1
)

// Record is one message on the channel.
type Record struct {
	Kind  Kind
	Token uint64
	// Path is PathDirect or PathRelay in a Handoff, else 0.
	Path uint8
	// Status is StatusClean or StatusError in an End, else 0.
	Status uint8
	// Text is the reason of an End or an Abort; what is longer than MaxText is
	// cut at a character's border.
	Text string
}

// Encode returns the record's bytes.
func (r Record) Encode() [RecordSize]byte {
	var b [RecordSize]byte
	b[0] = recordVersion
	b[1] = byte(r.Kind)
	b[2] = r.Path | r.Status
	text := cut(r.Text)
	b[3] = byte(len(text))
	binary.BigEndian.PutUint64(b[4:], r.Token)
	copy(b[textOffset:], text)
	return b
}

// Decode reads a record. It refuses what a sender of this version would not
// have written, and says what is wrong with it.
func Decode(b []byte) (Record, error) {
	if len(b) != RecordSize {
		return Record{}, fmt.Errorf("record of %d bytes, not %d", len(b), RecordSize)
	}
	if b[0] != recordVersion {
		return Record{}, fmt.Errorf("record version %d, not %d", b[0], recordVersion)
	}
	r := Record{Kind: Kind(b[1]), Token: binary.BigEndian.Uint64(b[4:])}
	if r.Token == 0 {
		return Record{}, fmt.Errorf("record of kind %d without a token", b[1])
	}
	switch r.Kind {
	case Handoff:
		r.Path = b[2]
		if r.Path != PathDirect && r.Path != PathRelay {
			return Record{}, fmt.Errorf("handoff with path %d", b[2])
		}
	case End:
		r.Status = b[2]
		if r.Status > StatusError {
			return Record{}, fmt.Errorf("end with status %d", b[2])
		}
	case EOF, Abort:
		if b[2] != 0 {
			return Record{}, fmt.Errorf("record of kind %d with a status", b[1])
		}
	default:
		return Record{}, fmt.Errorf("record of unknown kind %d", b[1])
	}
	n := int(b[3])
	if n > MaxText {
		return Record{}, fmt.Errorf("record text of %d bytes, at most %d", n, MaxText)
	}
	text := b[textOffset : textOffset+n]
	if !utf8.Valid(text) {
		return Record{}, fmt.Errorf("record text is not UTF-8")
	}
	r.Text = string(text)
	return r, nil
}

// cut makes a text valid UTF-8 and no longer than a record's.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= MaxText {
		return s
	}
	n := MaxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
