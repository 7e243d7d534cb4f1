package clienthello

// Info is what a client asks for.
type Info struct {
	// ServerName is the name of the server (RFC 6066, section 3), as the client wrote
	// it, whatever its bytes; empty: it asks for none.
	ServerName string
	// Protocols are those of ALPN (RFC 7301), in the client's order.
	Protocols []string
	// Versions are those of supported_versions (RFC 8446, section 4.2.1), or else the
	// newest that the client speaks.
	Versions []uint16
}

// The types of extensions.
const (
	extServerName        = 0
	extALPN              = 16
	extSupportedVersions = 43
)

var errDecode = &MalformedError{alertDecodeError, "its fields do not add up"}

// Info returns what the message says. It is as strict as crypto/tls about what it reads: no
// extension comes twice, and there is one name at most. But that may end in a dot, as some
// programs send it in spite of RFC 6066, section 3: servers differ in whether they mind. The
// error is a *MalformedError.
func (h *Hello) Info() (*Info, error) {
	message, _ := h.message()
	b := fields(message)
	var suites, extensions fields
	version, ok := b.number(2)
	if !ok || !b.skip(32) || !b.vector(1, new(fields)) || !b.vector(2, &suites) || len(suites)%2 != 0 || !b.vector(1, new(fields)) {
		return nil, errDecode
	}
	info := &Info{Versions: []uint16{uint16(version)}}
	if len(b) == 0 {
		return info, nil // it has no extensions (RFC 5246, section 7.4.1.2)
	}
	if !b.vector(2, &extensions) || len(b) > 0 {
		return nil, errDecode
	}
	seen := map[int]bool{}
	for len(extensions) > 0 {
		var content fields
		kind, ok := extensions.number(2)
		if !ok || seen[kind] || !extensions.vector(2, &content) || !info.extension(kind, content) {
			return nil, errDecode
		}
		seen[kind] = true
	}
	return info, nil
}

func (i *Info) extension(kind int, content fields) bool {
	var list fields
	switch kind {
	case extServerName:
		if !content.vector(2, &list) || len(list) == 0 {
			return false
		}
		for len(list) > 0 {
			var name fields
			form, ok := list.number(1)
			if !ok || !list.vector(2, &name) || len(name) == 0 {
				return false
			}
			if form != 0 {
				continue // no host_name; there is no other yet
			}
			if i.ServerName != "" {
				return false
			}
			i.ServerName = string(name)
		}
	case extALPN:
		if !content.vector(2, &list) || len(list) == 0 {
			return false
		}
		for len(list) > 0 {
			var name fields
			if !list.vector(1, &name) || len(name) == 0 {
				return false
			}
			i.Protocols = append(i.Protocols, string(name))
		}
	case extSupportedVersions:
		if !content.vector(1, &list) || len(list) == 0 {
			return false
		}
		i.Versions = nil
		for len(list) > 0 {
			v, ok := list.number(2)
			if !ok {
				return false
			}
			i.Versions = append(i.Versions, uint16(v))
		}
	default:
		return true
	}
	return len(content) == 0
}

// Behind returns how many bytes of Raw are behind the records of the message.
func (h *Hello) Behind() int {
	_, behind := h.message()
	return behind
}

// message returns the message's bytes behind its header, and Behind.
func (h *Hello) message() (all []byte, behind int) {
	for raw := h.Raw; len(raw) > recordHeader; {
		size := int(raw[3])<<8 | int(raw[4])
		end := min(recordHeader+size, len(raw))
		all = append(all, raw[recordHeader:end]...)
		if want := wanted(all); want > 0 && len(all) >= want {
			return all[messageHeader:want], len(raw) - end
		}
		raw = raw[end:]
	}
	return nil, 0
}

// wanted is the size of the message that begins so; 0: not known yet.
func wanted(b []byte) int {
	if len(b) < messageHeader {
		return 0
	}
	return messageHeader + int(b[1])<<16 + int(b[2])<<8 + int(b[3])
}

// fields is what is left of a message to be read.
type fields []byte

// number reads one of so many bytes.
func (f *fields) number(size int) (n int, ok bool) {
	b := *f
	if len(b) < size {
		return 0, false
	}
	for _, c := range b[:size] {
		n = n<<8 | int(c)
	}
	*f = b[size:]
	return n, true
}

func (f *fields) skip(n int) bool {
	if len(*f) < n {
		return false
	}
	*f = (*f)[n:]
	return true
}

// vector reads one whose length has so many bytes (RFC 8446, section 3.4).
func (f *fields) vector(size int, content *fields) bool {
	n, ok := f.number(size)
	if !ok || len(*f) < n {
		return false
	}
	*content, *f = (*f)[:n], (*f)[n:]
	return true
}
