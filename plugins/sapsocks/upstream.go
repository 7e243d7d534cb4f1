package sapsocks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/oauth2"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// upstream is a Config at work.
type upstream struct {
	config   *Config
	outbound sdk.Outbound
	log      *slog.Logger
	status   status

	mu       sync.Mutex
	settings settings
	tokens   *tokens // nil where no token service is used; set before the first dial
}

func start(c *Config, env *sdk.Env) (*upstream, error) {
	u := &upstream{config: c, outbound: env.Outbound, log: env.Log, status: status{report: env.Report}}
	read := u.read
	var err error
	if c.ServiceBinding == "" {
		err = read()
	} else {
		err = env.Follow(func() error {
			if err := read(); err != nil {
				return fmt.Errorf("service_binding: %w", err)
			}
			return nil
		}, c.ServiceBinding)
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

// read takes over what the configuration and its binding hold now. An error leaves what
// they held before.
func (u *upstream) read() error {
	s, err := u.config.settings()
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.settings = s
	switch {
	case u.tokens != nil:
		u.tokens.renewNow()
	case s.service != nil:
		u.tokens = newTokens(u.fetch, u.fetched)
		u.tokens.start()
	}
	return nil
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

func (u *upstream) current() settings {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.settings
}

// fetch is called by the one goroutine of tokens.
func (u *upstream) fetch(ctx context.Context) (*oauth2.Token, error) {
	return u.current().service.fetch(ctx, u.config, u.outbound)
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
