package config

import (
	"fmt"
	"io/fs"
	"math"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/schema"
)

// onUnix says whether an address is that of a unix socket of the daemon's own.
func onUnix(address string) bool { return strings.HasPrefix(address, unixScheme) }

// onlyUnix says whether all clients of the listener come over unix sockets, as far as that
// is known here.
func (l Listener) onlyUnix() bool {
	return len(l.Addresses) > 0 && !slices.ContainsFunc(l.Addresses, func(a string) bool { return !onUnix(a) })
}

var modeRE = regexp.MustCompile(`^0?[0-7]{3}$`)

// access reads who may connect to a listener's unix sockets.
func (p *parser) access(l *Listener, v schema.Values, b *hclsyntax.Block) {
	if !slices.ContainsFunc(l.Addresses, onUnix) {
		p.noUnix(l, b)
		return
	}
	p.withoutAddresses(l, v, b)
	if l.Kind == listen.KindSNI && !p.given(b, "port") {
		p.errorAt(b.TypeRange, "A unix socket has no port", "Clients of an sni listener get to the port that they have connected to, and here there is none. Write port = 443, or that of the targets.")
	}
	written, known := v["mode"].(string)
	if known && !modeRE.MatchString(written) {
		known = false
		p.errorAt(locate(b, "mode"), `Wrong value for "mode"`, `Write the permissions as three octal digits: "0600" (the owner), "0660" (the group, too), "0666" (every user of this machine).`)
	}
	l.Access.UID = p.id(b, v, "owner", func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	l.Access.GID = p.id(b, v, "group", func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if !known {
		return // which was reported
	}
	bits, _ := strconv.ParseUint(written, 8, 9) // it was checked
	l.Access.Mode = fs.FileMode(bits)
	for _, one := range []struct {
		attribute, write string
		bit              fs.FileMode
	}{{"owner", "0600", 0o200}, {"group", "0660", 0o020}} {
		if v.Text(one.attribute) != "" && l.Access.Mode&one.bit == 0 {
			p.warnAt(locate(b, one.attribute), fmt.Sprintf("%q that cannot connect", one.attribute), fmt.Sprintf("Who connects needs the right to write to the socket. Write mode = %q, or leave %q out.", one.write, one.attribute))
		}
	}
	if l.Access.Mode&0o222 == 0 {
		p.warnAt(locate(b, "mode"), `"mode" that lets nobody connect`, `Who connects needs the right to write to the socket: "0600" lets the owner, "0660" the group, "0666" every user of this machine.`)
	}
}

// withoutAddresses reports what looks at clients' addresses where they have none.
func (p *parser) withoutAddresses(l *Listener, v schema.Values, b *hclsyntax.Block) {
	if !l.onlyUnix() {
		return
	}
	const detail = "The listener has only unix sockets, whose clients have no IP address. "
	for _, name := range []string{"allow", "deny"} {
		if len(v.List(name)) > 0 {
			p.errorAt(locate(b, name), fmt.Sprintf("%q without addresses", name), detail+"mode, owner and group say who may connect. Remove it.")
		}
	}
	for _, name := range []string{"max_per_source", "max_rate"} {
		if v.Block("limits").Int(name) > 0 {
			p.warnAt(locate(b, "limits", name), fmt.Sprintf("%q that counts nobody", name), detail+"Use max_connections, or leave it out.")
		}
	}
}

// noUnix reports what is said of unix sockets that a listener does not have.
func (p *parser) noUnix(l *Listener, b *hclsyntax.Block) {
	if len(l.Addresses) == 0 {
		return // which was reported
	}
	detail := `It is for addresses such as "unix:///run/tunneld/orders.sock". Remove it.`
	if slices.ContainsFunc(l.Addresses, func(a string) bool { _, ok := InheritedName(a); return ok }) {
		detail += " What is inherited has what its .socket unit says: SocketMode=, SocketUser= and SocketGroup=."
	}
	for _, name := range []string{"mode", "owner", "group"} {
		if p.given(b, name) {
			p.errorAt(locate(b, name), fmt.Sprintf("%q without a unix socket", name), detail)
		}
	}
}

// given says whether an attribute is written, and not null.
func (p *parser) given(b *hclsyntax.Block, name string) bool {
	a := b.Body.Attributes[name]
	if a == nil {
		return false
	}
	v, ok := p.eval(a.Expr)
	return !ok || !v.IsNull()
}

// id is the number of the user or group that an attribute names; -1: none.
func (p *parser) id(b *hclsyntax.Block, v schema.Values, attribute string, find func(string) (string, error)) int {
	written := v.Text(attribute)
	if written == "" {
		return -1
	}
	if n, err := strconv.ParseUint(written, 10, 32); err == nil && n < math.MaxUint32 {
		return int(n)
	}
	// The largest number stands for "leave it as it is" in chown.
	if found, err := find(written); err == nil {
		if n, err := strconv.ParseUint(found, 10, 32); err == nil && n < math.MaxUint32 {
			return int(n)
		}
	}
	what := map[string]string{"owner": "user", "group": "group"}[attribute]
	p.report(hclbody.Problem{
		Machine: true,
		Summary: fmt.Sprintf("Wrong value for %q", attribute),
		Detail:  fmt.Sprintf("This machine has no %s of that name. Make it, as by a package or sysusers.d, or write the name or the number of another one.", what),
		Range:   locate(b, attribute),
	})
	return -1
}
