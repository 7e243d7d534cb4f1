package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/tunneld/tunneld/internal/freeport"
)

// row is one way from the load to the far end.
type row struct {
	name string
	services
	token     string   // makes the load ask a sapsocks proxy itself
	user      string   // makes the load ask a SOCKS5 proxy, with benchPassword; anonymous: without
	targets   services // what it asks the SOCKS5 proxy for
	authority string   // makes the load speak TLS, and trust this file
	process   *process // nil: there is none in between
}

// anonymous is a user who is none: the load says no password.
const anonymous = "anonymous"

// startRows starts every row that is wanted; stopRows ends them. Rows that were
// started are returned with an error as well.
func startRows(ctx context.Context, s settings, far farEnds, dir string) ([]row, error) {
	var rows []row
	for _, r := range []struct {
		name  string
		start func(context.Context, settings, farEnds, string) (row, error)
	}{
		{"none", noProxy},
		{"haproxy", haproxy},
		{"socat", socat},
		{"tunneld", tunneldDirect},
		{"relay", tunneldRelay},
		{"asked", farAsked},
		{"sapsocks", tunneldSapsocks},
		{"open", tunneldOpen},
		{"login", tunneldLogin},
		{"haproxy-tls", haproxyTLS},
		{"tunneld-tls", tunneldTLS},
	} {
		if !wants(s.rows, r.name) {
			continue
		}
		got, err := r.start(ctx, s, far, filepath.Join(dir, "row-"+r.name))
		if err != nil {
			return rows, fmt.Errorf("%s: %w", r.name, err)
		}
		got.name = r.name
		rows = append(rows, got)
	}
	return rows, nil
}

func names(rows []row) (all []string) {
	for _, r := range rows {
		all = append(all, r.name)
	}
	return all
}

func stopRows(rows []row) {
	for _, r := range rows {
		if r.process != nil {
			r.process.stop()
		}
	}
}

func noProxy(_ context.Context, _ settings, far farEnds, _ string) (row, error) {
	return row{services: far.services()}, nil
}

func farAsked(_ context.Context, _ settings, far farEnds, _ string) (row, error) {
	return row{services: services{far.Proxy, far.Proxy, far.Proxy}, token: far.Token}, nil
}

var free freeport.Ports

// ports are three free addresses.
func ports() (r row, err error) {
	for _, p := range []*string{&r.echo, &r.sink, &r.source} {
		if *p, err = free.Address(); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (r row) wait(ctx context.Context) (row, error) {
	for _, p := range []string{r.echo, r.sink, r.source} {
		if err := waitPort(ctx, p); err != nil {
			r.process.stop()
			return r, err
		}
	}
	return r, nil
}

func haproxy(ctx context.Context, _ settings, far farEnds, dir string) (row, error) {
	return startHAProxy(ctx, far, dir, "")
}

// startHAProxy has its listeners do what bind says beside their address.
func startHAProxy(ctx context.Context, far farEnds, dir, bind string) (row, error) {
	r, err := ports()
	if err != nil {
		return r, err
	}
	text := "global\n nbthread 2\n maxconn 9300\n maxpipes 200\ndefaults\n mode tcp\n option splice-auto\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n timeout tunnel 1h\n"
	for _, p := range [][3]string{{"echo", r.echo, far.Echo}, {"sink", r.sink, far.Sink}, {"source", r.source, far.Source}} {
		text += fmt.Sprintf("listen %s\n bind %s%s\n server far %s\n", p[0], p[1], bind, p[2])
	}
	file, err := write(dir, "haproxy.cfg", text)
	if err != nil {
		return r, err
	}
	if r.process, err = start(ctx, os.Stderr, "haproxy", "-db", "-q", "-f", file); err != nil {
		return r, err
	}
	return r.wait(ctx)
}

// socat is one process per listener, and forks one per connection.
func socat(ctx context.Context, _ settings, far farEnds, dir string) (row, error) {
	r, err := ports()
	if err != nil {
		return r, err
	}
	text := "#!/bin/sh\n"
	for _, p := range [][2]string{{r.echo, far.Echo}, {r.sink, far.Sink}, {r.source, far.Source}} {
		_, port, err := net.SplitHostPort(p[0])
		if err != nil {
			return r, err
		}
		text += fmt.Sprintf("socat -b 65536 TCP-LISTEN:%s,bind=127.0.0.1,fork,reuseaddr,backlog=4096 TCP:%s &\n", port, p[1])
	}
	file, err := write(dir, "socat.sh", text+"wait\n")
	if err != nil {
		return r, err
	}
	if r.process, err = start(ctx, io.Discard, "sh", file); err != nil {
		return r, err
	}
	return r.wait(ctx)
}

func tunneldDirect(ctx context.Context, s settings, far farEnds, dir string) (row, error) {
	return startTunneld(ctx, s, dir, `upstream "direct" "far" {}`, "direct.far", far.services())
}

func tunneldRelay(ctx context.Context, s settings, far farEnds, dir string) (row, error) {
	exe, err := os.Executable()
	if err != nil {
		return row{}, err
	}
	text := fmt.Sprintf("plugin \"benchrelay\" {\n command = [%q, \"plugin\"]\n}\nupstream \"benchrelay\" \"far\" {}", exe)
	return startTunneld(ctx, s, dir, text, "benchrelay.far", far.services())
}

func tunneldSapsocks(ctx context.Context, s settings, far farEnds, dir string) (row, error) {
	if _, err := write(dir, "vcap.json", far.VCAP); err != nil {
		return row{}, err
	}
	return startTunneld(ctx, s, dir, "upstream \"sapsocks\" \"far\" {\n vcap_services = file(\"vcap.json\")\n}", "sapsocks.far", virtual)
}

// tunneldOpen is a socks5 listener that asks nobody for a password.
func tunneldOpen(ctx context.Context, s settings, far farEnds, dir string) (row, error) {
	return startSOCKS5(ctx, s, far, dir, anonymous, "")
}

// The user of an htpasswd file, as "htpasswd -nbB -C 10" has made it of the password.
const (
	benchUser     = "bench"
	benchPassword = "geheim"
	benchHash     = "$2y$10$q7aEVKhTv5oJJm7yeki1sOu9qvWUHRv5zXBev6TRpANiDV/sVtlkS"
)

// tunneldLogin is one whose clients are a user of an htpasswd file.
func tunneldLogin(ctx context.Context, s settings, far farEnds, dir string) (row, error) {
	file, err := write(dir, "users", benchUser+":"+benchHash+"\n")
	if err != nil {
		return row{}, err
	}
	return startSOCKS5(ctx, s, far, dir, benchUser, fmt.Sprintf(" auth {\n  htpasswd_file = %q\n }\n", file))
}

func startSOCKS5(ctx context.Context, s settings, far farEnds, dir, user, auth string) (row, error) {
	address, err := free.Address()
	if err != nil {
		return row{}, err
	}
	r := row{services: services{address, address, address}, user: user, targets: far.services()}
	text := fmt.Sprintf("listener \"socks5\" \"a\" {\n address = %q\n allow_targets = [\"127.0.0.0/8\"]\n%s}\nupstream \"direct\" \"far\" {}\n", address, auth)
	return r.startTunneld(ctx, s, dir, text, "direct.far")
}

func startTunneld(ctx context.Context, s settings, dir, upstream, id string, targets services) (row, error) {
	r, err := ports()
	if err != nil {
		return r, err
	}
	return r.startTunneld(ctx, s, dir, upstream+"\n"+r.listeners(targets, ""), id)
}

// listeners are tunneld's for the three services, each with what block says.
func (r row) listeners(targets services, block string) (text string) {
	for _, kind := range []string{"up", "down", "rr"} {
		text += fmt.Sprintf("listener \"tcp\" %q {\n address = %q\n target = %q\n%s}\n", kind, r.of(kind), targets.of(kind), block)
	}
	return text
}

// startTunneld starts tunneld with all but the log and the route.
func (r row) startTunneld(ctx context.Context, s settings, dir, text, id string) (row, error) {
	text += "log {\n level = \"error\"\n access = false\n}\nroute \"all\" {\n upstreams = [upstream." + id + "]\n}\n"
	file, err := write(dir, "tunneld.hcl", text)
	if err != nil {
		return r, err
	}
	if r.process, err = start(ctx, os.Stderr, s.tunneld, "run", "-c", file); err != nil {
		return r, err
	}
	return r.wait(ctx)
}

func write(dir, name, text string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// build makes the tunneld of a checkout, or of this one (""), in dir.
func build(ctx context.Context, checkout, dir string) (string, error) {
	path := filepath.Join(dir, "tunneld")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", path, "github.com/tunneld/tunneld/cmd/tunneld")
	cmd.Dir, cmd.Stderr = checkout, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build tunneld: %w", err)
	}
	return path, nil
}

func (r row) loadArgs(kind string, n int, s settings) []string {
	args := []string{"load", "-kind", kind, "-address", r.of(kind), "-n", strconv.Itoa(n), "-length", s.length.String()}
	if r.authority != "" {
		args = append(args, "-authority", r.authority)
	}
	if r.token != "" {
		args = append(args, "-target", virtual.of(kind), "-token", r.token)
	}
	if r.user != "" {
		args = append(args, "-target", r.targets.of(kind), "-user", r.user)
	}
	return args
}
