package sapsocks

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// lookEvery is how often at most the dials look whether a service binding's
// folder has changed.
const lookEvery = time.Second

// upstream is a Config at work.
type upstream struct {
	config   *Config
	outbound sdk.Outbound
	log      *slog.Logger
	tokens   *tokens // nil where no token service is used
	status   status

	mu       sync.Mutex
	settings settings
	folder   string // fingerprint of the service binding, if there is one
	looked   time.Time
}

func start(c *Config, env *sdk.Env) (*upstream, error) {
	u := &upstream{config: c, outbound: env.Outbound, log: env.Log, status: status{report: env.Report}}
	if c.ServiceBinding != "" {
		// Before the binding is read: a change in between is seen as one.
		u.folder, _ = fingerprint(c.ServiceBinding)
		u.looked = time.Now()
	}
	s, err := c.settings()
	if err != nil {
		return nil, err
	}
	u.settings = s
	if s.service != nil {
		u.tokens = newTokens(u.fetch, u.fetched)
		u.tokens.start()
	}
	return u, nil
}

// settings reads the binding and merges it; the first problem is the error.
func (c *Config) settings() (settings, error) {
	b, err := c.binding()
	if err != nil {
		return settings{}, err
	}
	s, problems := c.merge(b, true)
	for _, p := range problems {
		if !p.Warning {
			return settings{}, errors.New(p.Summary)
		}
	}
	return s, nil
}

func (u *upstream) close() {
	if u.tokens != nil {
		u.tokens.close()
	}
}

// current returns the settings, read anew if the service binding has changed
// when it was looked at last, which is no longer ago than age. One that cannot be
// read leaves the settings as they were: a rotation may be half done.
func (u *upstream) current(age time.Duration) settings {
	folder := u.config.ServiceBinding
	u.mu.Lock()
	defer u.mu.Unlock()
	if folder == "" || time.Since(u.looked) < age {
		return u.settings
	}
	u.looked = time.Now()
	seen, err := fingerprint(folder)
	if err == nil && seen == u.folder {
		return u.settings
	}
	var s settings
	if err == nil {
		s, err = u.config.settings()
	}
	if err != nil {
		u.log.Warn("cannot read the service binding again; going on with what it held", "folder", folder, "err", err)
		return u.settings
	}
	u.log.Info("the service binding was replaced", "folder", folder)
	u.settings, u.folder = s, seen
	if u.tokens != nil {
		u.tokens.renewNow()
	}
	return s
}

// fetch is called by the one goroutine of tokens. What is fetched rarely is worth
// a look at the newest credentials.
func (u *upstream) fetch(ctx context.Context) (*oauth2.Token, error) {
	s := u.current(0).service
	if s == nil {
		return nil, words{}.failure(BindingUnreadable, "it no longer has credentials", nil)
	}
	return s.fetch(ctx, u.config, u.outbound)
}

// fetched tells how a fetch went.
func (u *upstream) fetched(k *token, usable bool, err error) {
	if err != nil {
		u.log.Warn("no new access token", "err", err, "usable", usable)
	} else {
		u.log.Debug("new access token", "expires", k.expires)
	}
	u.status.fetched(k, usable, err)
}
