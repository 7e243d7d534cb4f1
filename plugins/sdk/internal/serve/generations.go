package serve

import (
	"context"
	"fmt"
	"runtime/debug"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// instanceKey is what makes upstreams of two generations the same.
type instanceKey struct{ name, hash string }

// instance is an upstream's configuration in use. It is closed when no
// generation holds it and no dial is in flight.
type instance struct {
	Instance
	key  instanceKey
	refs int // generations and dials in flight; guarded by Server.mu
}

// Configure adds a generation, whole or not at all.
func (s *Server) Configure(ctx context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	if err := checkConfigure(req); err != nil {
		return nil, err
	}
	if err := s.lockGenerations(ctx); err != nil {
		return nil, err
	}
	defer s.unlockGenerations()

	s.mu.Lock()
	_, exists := s.generations[req.GetGeneration()]
	stopped := s.stopped
	s.mu.Unlock()
	switch {
	case stopped:
		return nil, errStopping
	case exists:
		return nil, status.Errorf(codes.AlreadyExists, "generation %d exists already", req.GetGeneration())
	}

	members := make(map[string]*instance, len(req.GetUpstreams()))
	started, ds := s.prepare(req.GetUpstreams(), members)
	var err error
	switch {
	case ctx.Err() != nil:
		err = status.FromContextError(ctx.Err()).Err()
	case !hasError(ds) && !s.publish(req.GetGeneration(), members, started):
		err = errStopping
	case !hasError(ds):
		return &pluginv1.ConfigureResponse{Diagnostics: ds}, nil
	}
	for _, i := range started {
		s.closeInstance(i)
	}
	s.unhold(members)
	if err != nil {
		return nil, err
	}
	return &pluginv1.ConfigureResponse{Diagnostics: ds}, nil
}

// publish makes a generation known, unless the server stops meanwhile.
func (s *Server) publish(generation uint64, members map[string]*instance, started []*instance) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.generations[generation] = members
	for _, i := range started {
		s.instances[i.key] = i
		i.refs = 1
		s.status.publish(i)
	}
	return true
}

func checkConfigure(req *pluginv1.ConfigureRequest) error {
	if req.GetGeneration() == 0 {
		return status.Error(codes.InvalidArgument, "generation is 0")
	}
	names := make(map[string]bool)
	for _, u := range req.GetUpstreams() {
		switch {
		case u.GetName() == "":
			return status.Error(codes.InvalidArgument, "an upstream without a name")
		case u.GetConfigHash() == "":
			return status.Errorf(codes.InvalidArgument, "upstream %q without a config_hash", u.GetName())
		case names[u.GetName()]:
			return status.Errorf(codes.InvalidArgument, "upstream %q appears twice", u.GetName())
		}
		names[u.GetName()] = true
	}
	return nil
}

// prepare finds or makes an instance for each upstream. It returns those that
// it started; the ones found are held by one reference more.
func (s *Server) prepare(upstreams []*pluginv1.Upstream, members map[string]*instance) (started []*instance, ds []*pluginv1.Diagnostic) {
	var fresh []*instance
	for _, u := range upstreams {
		key := instanceKey{name: u.GetName(), hash: u.GetConfigHash()}
		if i := s.hold(key); i != nil {
			members[key.name] = i
			continue
		}
		i, found := s.make(u)
		ds = append(ds, found...)
		if !hasError(found) {
			members[key.name] = i
			fresh = append(fresh, i)
		}
	}
	if hasError(ds) {
		return nil, ds
	}
	for _, i := range fresh {
		if err := s.start(i); err != nil {
			s.status.remove(i)
			return started, append(ds, &pluginv1.Diagnostic{
				Severity: pluginv1.Severity_SEVERITY_ERROR,
				Summary:  clean("cannot start: " + err.Error()),
				NotYet:   true,
				Upstream: i.key.name,
			})
		}
		started = append(started, i)
	}
	return started, ds
}

// make builds an instance and checks its values.
func (s *Server) make(u *pluginv1.Upstream) (*instance, []*pluginv1.Diagnostic) {
	i := &instance{key: instanceKey{name: u.GetName(), hash: u.GetConfigHash()}}
	var ds []*pluginv1.Diagnostic
	err := s.guard("checking the configuration", func() error {
		i.Instance = s.plugin.New()
		if ds = i.Decode(u); !hasError(ds) {
			ds = append(ds, i.Validate()...)
		}
		return nil
	})
	if err != nil {
		ds = append(ds, &pluginv1.Diagnostic{
			Severity: pluginv1.Severity_SEVERITY_ERROR,
			Summary:  "the plugin failed while it checked the configuration",
			Detail:   "This is a mistake in the plugin; its log has the details.",
		})
	}
	for _, d := range ds {
		d.Upstream = u.GetName()
		cleanDiagnostic(d)
	}
	return i, ds
}

func (s *Server) start(i *instance) error {
	s.status.add(i)
	return s.guard("starting an upstream", func() error {
		return i.Start(Env{
			Upstream: i.key.name,
			Log:      s.log.With("upstream", i.key.name),
			Report:   func(st *pluginv1.UpstreamStatus) { s.status.report(i, st) },
			Watch:    s.watch,
		})
	})
}

// Release drops a generation. Its upstreams are closed where no other
// generation holds them.
func (s *Server) Release(ctx context.Context, req *pluginv1.ReleaseRequest) (*pluginv1.ReleaseResponse, error) {
	if err := s.lockGenerations(ctx); err != nil {
		return nil, err
	}
	defer s.unlockGenerations()
	s.release(req.GetGeneration())
	return &pluginv1.ReleaseResponse{}, nil
}

func (s *Server) release(generation uint64) {
	s.mu.Lock()
	members := s.generations[generation]
	delete(s.generations, generation)
	s.mu.Unlock()
	s.unhold(members)
}

// releaseAll drops all generations when the server stops. It does not wait for
// a Configure under way, which may be what hangs.
func (s *Server) releaseAll() {
	s.mu.Lock()
	var all []uint64
	for g := range s.generations {
		all = append(all, g)
	}
	s.mu.Unlock()
	for _, g := range all {
		s.release(g)
	}
}

// hold returns the instance of key with one reference more, or nil.
func (s *Server) hold(key instanceKey) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.instances[key]
	if i != nil {
		i.refs++
	}
	return i
}

func (s *Server) unhold(members map[string]*instance) {
	for _, i := range members {
		s.drop(i)
	}
}

// drop gives one reference back; the last one closes the instance. An instance
// that was never in use has none.
func (s *Server) drop(i *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.instances[i.key] != i {
		return
	}
	if i.refs--; i.refs > 0 {
		return
	}
	delete(s.instances, i.key)
	s.closing++
	go func() {
		s.closeInstance(i)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closing--
		s.shrunk()
	}()
}

func (s *Server) closeInstance(i *instance) {
	s.status.remove(i)
	if err := s.guard("closing an upstream", i.Close); err != nil {
		s.log.Warn("closing an upstream failed", "upstream", i.key.name, "err", err)
	}
}

func (s *Server) lockGenerations(ctx context.Context) error {
	select {
	case s.configuring <- struct{}{}:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func (s *Server) unlockGenerations() { <-s.configuring }

// guard runs code of the plugin; a panic becomes an error and a log entry with
// the stack.
func (s *Server) guard(doing string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("the plugin panicked", "doing", doing, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("the plugin panicked while %s; its log has the details", doing)
		}
	}()
	return f()
}

func hasError(ds []*pluginv1.Diagnostic) bool {
	for _, d := range ds {
		if d.GetSeverity() == pluginv1.Severity_SEVERITY_ERROR {
			return true
		}
	}
	return false
}
