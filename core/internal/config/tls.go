package config

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/tunneld/tunneld/core/internal/hclbody"
	"github.com/tunneld/tunneld/core/internal/listen"
	"github.com/tunneld/tunneld/core/internal/route"
	"github.com/tunneld/tunneld/internal/hostname"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// directTLS reads the tls block of a direct upstream, and whether its files are of use.
func (p *parser) directTLS(v schema.Values, b *hclsyntax.Block) *TLS {
	if !hasBlock(b, "tls") {
		return nil
	}
	block := v.Block("tls")
	o := tlsconf.ClientOptions{
		CAFile: block.Text("ca_file"), CertFile: block.Text("cert_file"), KeyFile: block.Text("key_file"),
		MinVersion: block.Text("min_version"), MaxVersion: block.Text("max_version"), CipherSuites: tlsconf.JoinSuites(block.List("cipher_suites")),
		KeyLogFile: block.Text("key_log_file"), InsecureSkipVerify: block.Bool("insecure_skip_verify"),
	}
	for _, wrong := range slices.Concat(o.FileProblems(time.Now()), o.Problems()) {
		p.tlsProblem(b, wrong, wrong.Path())
	}
	if !hostname.IsName(block.Text("server_name")) {
		p.errorAt(locate(b, "tls", "server_name"), `Wrong value for "server_name"`, route.NoName)
	}
	if o.InsecureSkipVerify {
		p.warnAt(locate(b, "tls", "insecure_skip_verify"), "The far end's certificate is not checked", "Whoever answers can read and change everything. Set ca_file instead.")
	}
	return &TLS{Client: o, ServerName: block.Text("server_name")}
}

// tlsProblem reports a problem of what a path leads to within the tls block of b.
func (p *parser) tlsProblem(b *hclsyntax.Block, wrong tlsconf.Problem, path []string) {
	p.report(hclbody.Problem{
		Warning: wrong.Warning, Machine: wrong.Machine, Range: locate(b, append([]string{"tls"}, path...)...),
		Summary: strings.ToUpper(wrong.Summary[:1]) + wrong.Summary[1:], Detail: wrong.Detail,
	})
}

// endsTLS says whether a listener can have a tls block.
func endsTLS(k listen.Kind) bool { return !k.ThroughTLS }

// listenerTLS reads the tls block of a listener, and whether its files are of use.
func (p *parser) listenerTLS(v schema.Values, b *hclsyntax.Block) *ListenerTLS {
	if !hasBlock(b, "tls") {
		return nil
	}
	block := v.Block("tls")
	o := tlsconf.ServerOptions{
		ClientCAFile: block.Text("client_ca_file"), AllowSAN: block.List("allow_san"),
		MinVersion: block.Text("min_version"), MaxVersion: block.Text("max_version"),
		CipherSuites: block.List("cipher_suites"), ALPN: block.List("alpn"),
	}
	if list, given := block["allow_san"].([]any); given && len(list) == 0 {
		p.errorAt(locate(b, "tls", "allow_san"), `"allow_san" is empty`, "It would let everybody in who has a certificate of client_ca_file. Name whose certificates are let in, or leave it out if all are.")
	}
	var places [][]string // of the pairs
	add := func(in schema.Values, place ...string) {
		if pair := (tlsconf.Pair{CertFile: in.Text("cert_file"), KeyFile: in.Text("key_file")}); pair.CertFile != "" && pair.KeyFile != "" {
			o.Pairs, places = append(o.Pairs, pair), append(places, append(place, "cert_file"))
		}
	}
	add(block)
	more, _ := block["certificate"].([]any)
	for i, one := range more {
		in, _ := one.(schema.Values)
		add(in, "certificate", strconv.Itoa(i))
	}
	// What is written by half, or wrong, was reported.
	written := block["cert_file"] != nil || block["key_file"] != nil || len(more) > 0
	for _, wrong := range slices.Concat(o.Problems(), o.FileProblems(time.Now())) {
		path := wrong.Path()
		if wrong.Option == "cert_file" {
			if len(places) == 0 {
				if written {
					continue
				}
			} else {
				path = places[wrong.Index]
			}
		}
		p.tlsProblem(b, wrong, path)
	}
	return &ListenerTLS{Server: o, FIN: block.Text("half_close") == "fin"}
}
