package azrelay

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// maxTokenMargin bounds how long before its end a token is replaced.
const maxTokenMargin = 5 * time.Minute

// Token returns the token that dials of c would send, for use elsewhere, and
// when it ends: the ready-made one, or one signed now. now is the time to sign
// at. A configuration with errors, or without credentials, has none.
func Token(c *Config, now time.Time) (sdk.Secret, time.Time, error) {
	s, ds := c.settings()
	for _, d := range ds {
		if !d.Warning {
			return sdk.Secret{}, time.Time{}, fmt.Errorf("token of %s: %s", d.Path[0], d.Summary)
		}
	}
	switch {
	case !s.token.IsZero():
		t, err := sas.Parse(s.token.Reveal())
		if err != nil {
			return sdk.Secret{}, time.Time{}, fmt.Errorf("ready-made token: %w", err)
		}
		return s.token, t.Expires, nil
	case s.key.IsZero():
		return sdk.Secret{}, time.Time{}, errors.New("no token: the upstream has no credentials and dials anonymously")
	}
	if c.TokenTTL < minTokenTTL {
		return sdk.Secret{}, time.Time{}, fmt.Errorf("a token valid for %s would expire before it is of use: set at least %s", c.TokenTTL, minTokenTTL)
	}
	expires := now.Add(c.TokenTTL).Truncate(time.Second)
	return sdk.NewSecret(sas.Sign(s.audience(), s.keyName, s.key.Reveal(), expires)), expires, nil
}

// tokenSource signs tokens and keeps the newest. Its zero value is ready; it may
// be used by several goroutines.
type tokenSource struct {
	now func() time.Time // nil: time.Now

	mu      sync.Mutex
	token   string
	expires time.Time
	renewed time.Time
}

// get returns a token for s that is valid for a while, or "" where dials are
// anonymous.
func (t *tokenSource) get(s *settings, ttl time.Duration) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !s.token.IsZero():
		if t.token == "" {
			t.token = s.token.Reveal()
			if parsed, err := sas.Parse(t.token); err == nil {
				t.expires = parsed.Expires
			}
		}
		return t.token
	case s.key.IsZero():
		return ""
	}
	now := t.clock()
	if t.token == "" || !now.Before(t.expires.Add(-min(ttl/5, maxTokenMargin))) {
		t.expires, t.renewed = now.Add(ttl).Truncate(time.Second), now
		t.token = sas.Sign(s.audience(), s.keyName, s.key.Reveal(), t.expires)
	}
	return t.token
}

// drop forgets a token that was refused, so that the next dial signs anew: the
// clock may have been set since.
func (t *tokenSource) drop(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.token = ""
	}
}

func (t *tokenSource) validity() (expires, renewed time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.expires, t.renewed
}

func (t *tokenSource) clock() time.Time {
	if t.now == nil {
		return time.Now()
	}
	return t.now()
}
