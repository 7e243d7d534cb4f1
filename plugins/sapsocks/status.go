package sapsocks

import (
	"sync"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// status reports the state of the upstream to the daemon, only when it changes.
type status struct {
	report func(sdk.Status)

	mu               sync.Mutex
	dialErr          string // of the last dial that says something of the upstream
	fetchErr         string // of the last fetch
	unusable         bool   // no token is in hand
	expires, renewed time.Time
	last             sdk.Status
}

// fetched notes how a fetch of a token went. A renewal that fails while a token
// is in hand leaves the upstream healthy, with a message.
func (s *status) fetched(k *token, usable bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unusable = err != nil && !usable
	if s.fetchErr = ""; err != nil {
		s.fetchErr = err.Error()
	} else {
		s.expires, s.renewed = k.expires, k.renewed
	}
	s.tell()
}

// dialed notes how a dial went.
func (s *status) dialed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dialErr = ""; err != nil {
		s.dialErr = err.Error()
	}
	s.tell()
}

// tell is called with mu held: reports leave in the order of what they tell.
func (s *status) tell() {
	next := sdk.Status{
		Health:            sdk.HealthOK,
		Message:           s.dialErr,
		CredentialExpires: s.expires,
		CredentialRenewed: s.renewed,
	}
	if next.Message == "" {
		next.Message = s.fetchErr
	}
	if s.dialErr != "" || s.unusable {
		next.Health = sdk.HealthFailing
	}
	if next != s.last {
		s.last = next
		s.report(next)
	}
}
