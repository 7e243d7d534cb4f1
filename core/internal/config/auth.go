package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/auth"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/internal/schema"
)

// authBlock is the block of listeners whose clients have to log in.
const authBlock = "auth"

// withPasswords says which listeners can have it, and what one of another kind has instead.
func withPasswords(other listen.Kind) string {
	text := "a listener of kind " + kindsWith(func(k listen.Kind) bool { return k.Passwords }) + ", whose clients can send a password. Here let in the addresses that you know (allow)"
	if endsTLS(other) {
		text += ", or have clients show a certificate (client_ca_file in tls)"
	}
	return text
}

// auth reads a listener's auth block, and what its htpasswd file holds. False: it is not
// known who may log in. No message repeats a user's name: a password may stand in its place.
func (p *parser) auth(l *Listener, v schema.Values, b *hclsyntax.Block) bool {
	if !hasBlock(b, authBlock) {
		return true
	}
	block := v.Block(authBlock)
	if block["users"] == nil || block["htpasswd_file"] == nil {
		return false
	}
	users, file := block.Map("users"), block.Text("htpasswd_file")
	if len(users) == 0 && file == "" {
		p.errorAt(locate(b, authBlock), "Nobody can log in", `Name users = { NAME = "PASSWORD" }, or an htpasswd_file, or remove the block: then nobody is asked for a password.`)
		return false
	}
	for _, user := range slices.Sorted(maps.Keys(users)) {
		for _, problem := range []string{auth.UserProblem(user), auth.PasswordProblem(users[user])} {
			if problem != "" {
				p.errorAt(locate(b, authBlock, "users"), `Wrong value for "users"`, strings.ToUpper(problem[:1])+problem[1:]+".")
			}
		}
	}
	if summary, detail := schema.ControlProblem(file); summary != "" {
		p.errorAt(locate(b, authBlock, "htpasswd_file"), fmt.Sprintf("%q %s", "htpasswd_file", summary), detail)
		return false
	}
	l.Auth = auth.NewOptions(users, file)
	for _, problem := range l.Auth.Problems() {
		p.warnAt(locate(b, authBlock, "htpasswd_file"), "The htpasswd file is of no use, or not all of it", problem.String()+".")
	}
	return true
}
