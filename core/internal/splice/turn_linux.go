package splice

import "syscall"

// turn moves what can be moved in both directions.
func (w *worker) turn(s *slot) {
	if !s.moves() {
		return
	}
	for d := range s.dirs {
		w.pump(s, d)
		s.refund(d)
		if !s.moves() {
			return
		}
	}
	w.notice(s)
}

// pump moves one direction until it has nothing to read, nowhere to write, or
// has had its share.
func (w *worker) pump(s *slot, d int) {
	dir, a := &s.dirs[d], s.allowance(d)
	for left := budget; ; {
		switch {
		case dir.state == dirDone || dir.state == dirPassing:
			return
		case dir.state == dirSink:
			if !s.readyIn[d] || !w.sink(s, d) {
				return
			}
		case dir.holds():
			if !s.readyTo[1-d] || !w.flush(s, d) {
				return
			}
		case dir.state == dirEOF:
			w.drained(s, d)
			return
		case !s.readyIn[d]:
			w.unpipe(dir)
			return
		case left <= 0:
			w.later(s)
			return
		default:
			most := budget
			if a != nil {
				if most = w.allowed(s, d, a); most == 0 {
					w.unpipe(dir)
					return
				}
			}
			n, ok := w.fill(s, d, most)
			if !ok {
				return
			}
			left -= n
			if a != nil {
				a.granted -= n
			}
		}
	}
}

// fill reads from the direction's source, at most that many bytes. It returns false after
// the tunnel was broken off.
func (w *worker) fill(s *slot, d, most int) (int, bool) {
	dir := &s.dirs[d]
	if dir.bulk && !s.suspect() {
		if dir.pipe == nil {
			dir.pipe = w.pipes.get(w.now)
		}
		if dir.pipe != nil {
			return w.fillPipe(s, d, most)
		}
	}
	b := w.buf[:min(len(w.buf), most)]
	n, errno := s.recv(d, b)
	switch {
	case errno == 0 && n > 0:
		full := n == len(b)
		dir.bulk = n == len(w.buf) && !dir.plain && !s.urgent[d]
		// A short read has emptied the socket, unless a FIN came along, when
		// only a read of zero tells, or it ended where urgent data begins.
		if !full && !s.finSeen[d] && !s.urgent[d] {
			s.readyIn[d] = false
		}
		return n, w.pass(s, d, w.buf[:n])
	default:
		return 0, w.filled(s, d, n, errno)
	}
}

func (w *worker) fillPipe(s *slot, d, most int) (int, bool) {
	dir := &s.dirs[d]
	// The pipe is empty, so that EAGAIN speaks of the socket.
	n, errno := s.fromSocket(d, dir.pipe, most)
	if errno == 0 && n > 0 {
		dir.pipe.held = n
		return n, true
	}
	dir.bulk = false
	switch errno {
	case 0:
		// An end, or urgent data, beyond which splice does not read: a read
		// tells them apart.
		return 0, true
	case syscall.EINVAL, syscall.ENOSYS, syscall.EPERM, syscall.EOPNOTSUPP, syscall.ENOMEM, syscall.ENOBUFS:
		dir.plain = true
		return 0, true
	}
	return 0, w.filled(s, d, n, errno)
}

// filled deals with a read that brought nothing.
func (w *worker) filled(s *slot, d, n int, errno syscall.Errno) bool {
	switch {
	case errno == 0 && n == 0:
		w.directionEvent(s, d, evEOF)
		s.active = w.now
	case again(errno):
		s.readyIn[d] = false
	case interrupted(errno):
	case d == upstream && s.relay != nil && errno == syscall.ECONNRESET:
		// The plugin has closed a relay with bytes of ours in it. What it sent
		// has been read; whether that was all is its word to say.
		w.directionEvent(s, d, evEOF)
	default:
		w.breakOff(s, resetReasons[s.side(d)], sideError{"read from " + s.name(d), errno})
		return false
	}
	return true
}

// pass writes b, which is the worker's buffer, and keeps what is not taken.
func (w *worker) pass(s *slot, d int, b []byte) bool {
	dir := &s.dirs[d]
	n := 0
	if s.readyTo[1-d] {
		var errno syscall.Errno
		n, errno = s.send(1-d, b)
		if errno != 0 {
			n = 0
			if !w.unwritten(s, d, errno) {
				return false
			}
		}
		w.copied(s, dir, n)
	}
	if n < len(b) {
		dir.rest = newRest(b[n:])
	}
	return true
}

// flush writes what the direction holds. It returns false where the sink takes
// no more, or after the tunnel was broken off.
func (w *worker) flush(s *slot, d int) bool {
	dir := &s.dirs[d]
	if r := dir.rest; r != nil {
		n, errno := s.send(1-d, r.b)
		if errno != 0 {
			return w.unwritten(s, d, errno) && interrupted(errno)
		}
		w.copied(s, dir, n)
		if r.b = r.b[n:]; len(r.b) == 0 {
			dir.dropRest()
		}
		return true
	}
	if s.suspect() {
		return w.unspliced(s, d)
	}
	n, errno := s.toSocket(1-d, dir.pipe)
	if errno != 0 {
		return w.unwritten(s, d, errno) && interrupted(errno)
	}
	dir.pipe.held -= n
	dir.spliced += int64(n)
	s.active = w.now
	return true
}

func (w *worker) copied(s *slot, dir *direction, n int) {
	dir.copied += int64(n)
	s.active = w.now
}

// unwritten deals with a write that failed. It returns false after the tunnel
// was broken off.
func (w *worker) unwritten(s *slot, d int, errno syscall.Errno) bool {
	switch {
	case again(errno):
		s.readyTo[1-d] = false
	case interrupted(errno):
	default:
		w.failed(s, 1-d, "write to", errno)
		return false
	}
	return true
}

// unpipe gives the direction's pipe back while nothing flows.
func (w *worker) unpipe(dir *direction) {
	if dir.pipe != nil && dir.pipe.held == 0 {
		w.pipes.put(dir.pipe)
		dir.pipe = nil
	}
}

// sink reads and drops what a client sends after the tunnel has ended. It returns
// false where there is no more, or after the tunnel was freed or broken off.
func (w *worker) sink(s *slot, d int) bool {
	n, errno := rawRecv(s.fds[d], w.buf)
	switch {
	case errno == 0 && n > 0, interrupted(errno):
		return true
	case errno == 0:
		w.directionEvent(s, d, evEOF)
	case again(errno):
		s.readyIn[d] = false
		w.finish(s)
	default:
		return w.filled(s, d, n, errno)
	}
	return false
}
