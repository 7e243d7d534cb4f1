package conformance

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
)

// rawRelay pumps one tunnel.
type rawRelay struct {
	r         *raw
	token     uint64
	path      uint8
	near      *net.UnixConn
	far       *net.TCPConn
	announced chan struct{} // closed by the daemon's EOF
	broken    chan struct{} // closed when it was broken off, or has ended
	once      sync.Once
}

func (r *raw) relay(token uint64, far *net.TCPConn, path uint8) error {
	near, theirs, err := pluginwire.RelayPair()
	if err != nil {
		return err
	}
	if r.mode != "a killed one ends cleanly" && r.mode != "says what it cannot" {
		_ = far.SetLinger(0)
	}
	l := &rawRelay{r: r, token: token, path: path, near: near, far: far, announced: make(chan struct{}), broken: make(chan struct{})}
	r.mu.Lock()
	if path == pluginwire.PathRelay {
		r.relays[token] = l
	}
	r.mu.Unlock()
	err = r.channel.Send(pluginwire.Record{Kind: pluginwire.Handoff, Token: token, Path: path}, theirs)
	_ = theirs.Close()
	go l.run()
	return err
}

func (l *rawRelay) say(rec pluginwire.Record) {
	if l.path == pluginwire.PathRelay {
		rec.Token = l.token
		_ = l.r.channel.Send(rec, nil)
	}
}

func (l *rawRelay) run() {
	if l.r.mode == "announces its end at the beginning" {
		l.say(pluginwire.Record{Kind: pluginwire.EOF})
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(l.up) })
	both.Go(func() { l.pump(l.down) })
	both.Wait()
	l.once.Do(func() {
		l.end(pluginwire.Record{Kind: pluginwire.End, Status: pluginwire.StatusClean})
		_ = l.far.SetLinger(-1)
	})
	if l.r.mode == "keeps a descriptor of each tunnel" {
		f, _ := l.far.File()
		l.r.keep(f)
	}
	_, _ = l.far.Close(), l.near.Close()
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	delete(l.r.relays, l.token)
	close(l.r.changed)
	l.r.changed = make(chan struct{})
	if l.r.mode == "32 at most" {
		<-l.r.slots
	}
}

// pump runs one direction; an error ends both.
func (l *rawRelay) pump(one func() error) {
	if err := one(); err != nil {
		l.once.Do(func() {
			text := err.Error()
			if l.r.mode == "tells its password in an END" {
				text = "refused with " + password
			}
			l.end(pluginwire.Record{Kind: pluginwire.End, Status: pluginwire.StatusError, Text: text})
		})
		_, _ = l.far.Close(), l.near.Close()
	}
}

// breakOff ends it at the daemon's word.
func (l *rawRelay) breakOff() {
	l.once.Do(func() {})
	close(l.broken)
	_, _ = l.far.Close(), l.near.Close()
}

func (l *rawRelay) up() error {
	if _, err := io.Copy(l.far, struct{ io.Reader }{l.near}); err != nil {
		return err
	}
	if l.path == pluginwire.PathRelay {
		select {
		case <-l.announced:
		case <-l.broken: // the process ends with the channel
			return errBroken
		}
	}
	if l.r.mode == "ends both with the client" {
		return errBoth
	}
	if err := l.far.CloseWrite(); err != nil && l.r.mode != "a reset is a clean end" {
		return err
	}
	return nil
}

func (l *rawRelay) down() error {
	_, err := io.Copy(l.near, l.r.reader(l.far))
	if err != nil && l.r.mode != "a reset is a clean end" {
		return err
	}
	if l.r.mode == "ends both with the target" {
		return errBoth
	}
	if l.r.mode != "announces its end at the beginning" && l.r.mode != "announces no EOF" {
		if l.r.mode == "announces the end after it" {
			err := l.near.CloseWrite()
			time.Sleep(3 * lateness / 2)
			l.say(pluginwire.Record{Kind: pluginwire.EOF})
			return err
		}
		l.say(pluginwire.Record{Kind: pluginwire.EOF})
	}
	return l.near.CloseWrite()
}

var (
	errBoth   = errors.New("one direction has ended")
	errBroken = errors.New("broken off")
)

func (l *rawRelay) end(rec pluginwire.Record) {
	switch {
	case l.r.mode == "says no END" && rec.Status == pluginwire.StatusClean:
		return
	case rec.Text == errBoth.Error():
		_ = l.far.SetLinger(-1)
		rec.Status, rec.Text = pluginwire.StatusClean, ""
	case l.r.mode == "says END twice":
		l.say(rec)
	}
	l.say(rec)
}
