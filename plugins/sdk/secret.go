package sdk

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a text that cannot be printed by accident: every form of printing,
// logging and encoding shows a placeholder. An attribute of this type is
// sensitive. The zero value is empty. Compare secrets by Reveal: == compares something else.
type Secret struct {
	// A pointer, since fmt calls no method of a value in an unexported field
	// and prints what it finds there: an address.
	value *string
}

const redacted = "[redacted]"

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{value: &value} }

// Reveal returns the value.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero says whether the value is empty.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// IsSet says whether there is a value, even an empty one, such as that of a variable
// that is set to nothing.
func (s Secret) IsSet() bool { return s.value != nil }

// String returns a placeholder.
func (s Secret) String() string { return redacted }

// Format writes a placeholder, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON writes a placeholder.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// UnmarshalJSON reads the value. Its error does not repeat it.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var value string
	if err := json.Unmarshal(b, &value); err != nil {
		return fmt.Errorf("a secret must be a string")
	}
	*s = NewSecret(value)
	return nil
}
