package sdk

import (
	"crypto/tls"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/tunneld/tunneld/internal/outbound"
	"github.com/tunneld/tunneld/internal/schema"
	"github.com/tunneld/tunneld/internal/sockopt"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// way is how the connections of an upstream leave, as its block has it.
type way struct {
	via  outbound.Via
	bind netip.Addr
	tls  TLS // for a proxy
}

// dialer makes connections with these options; watch, unless nil, takes each socket.
func (l *way) dialer(o SocketOptions, watch func(remote string, c syscall.RawConn)) outbound.Dialer {
	if l == nil {
		l = new(way) // of a request that an author's test made
	}
	d := outbound.Dialer{Socket: sockopt.Options(o), Bind: l.bind, Via: l.via, TLS: l.proxyTLS}
	if watch != nil {
		d.Control = func(network, address string, c syscall.RawConn) error {
			if strings.HasPrefix(network, "tcp") {
				watch(address, c)
			}
			return nil
		}
	}
	return d
}

// proxyTLS is what is spoken with a proxy: the authorities and the oldest version of the
// block's tls hold for it, too; all else there is the far end's.
func (l *way) proxyTLS(proxy string) (*tls.Config, error) {
	return TLS{CAFile: l.tls.CAFile, MinVersion: l.tls.MinVersion, kept: l.tls.kept}.Config(proxy)
}

// read takes over via and bind, as the daemon or the user wrote them.
func (l *way) read(via, bind string) (ds []Diagnostic) {
	var err error
	if l.via, err = outbound.ParseVia(via); err != nil {
		ds = append(ds, Diagnostic{Summary: "via is not a proxy: " + err.Error(), Detail: outbound.ViaHelp, Path: []string{"via"}})
	}
	if l.bind, err = outbound.ParseBind(bind); err != nil {
		ds = append(ds, Diagnostic{Summary: "bind is not a usable address: " + err.Error(), Detail: outbound.BindHelp, Path: []string{"bind"}})
	}
	return ds
}

// tlsBlock returns the struct's tls block, or the zero one where it has none.
func tlsBlock(d Dialer) TLS {
	v := reflect.ValueOf(d)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return TLS{}
	}
	v = v.Elem()
	for i := range v.NumField() {
		f, ok, err := fieldOf(v.Type().Field(i))
		if err != nil || !ok || f.name != "tls" {
			continue
		}
		switch t := v.Field(i).Interface().(type) {
		case TLS:
			return t
		case *TLS:
			if t != nil {
				return *t
			}
		}
	}
	return TLS{}
}

// schemaFor is the schema for a daemon with this table of common names: what a later
// one has of the SDK's doing is among the plugin's own there, and means the same.
func schemaFor(block *pluginv1.Block, table uint32) *pluginv1.Block {
	whole := proto.CloneOf(block)
	for _, c := range schema.CommonOf(schema.Upstreams) {
		if c.ByPlugin && c.Table > table {
			whole.Attributes = append(whole.Attributes, c.Attribute)
		}
	}
	return whole
}

// take takes over what an upstream's common values say, and returns the rest. From a
// daemon with an older table they are among the others.
func (l *way) take(u *pluginv1.Upstream) (config []byte, ds []Diagnostic) {
	via, bind := u.GetCommon().GetVia(), u.GetCommon().GetBind()
	config = u.GetConfigJson()
	var values map[string]json.RawMessage
	if json.Unmarshal(config, &values) != nil {
		return config, nil // who decodes it says so
	}
	taken := false
	for _, own := range []struct {
		name string
		text *string
	}{{"via", &via}, {"bind", &bind}} {
		value, given := values[own.name]
		if !given {
			continue
		}
		taken = true
		delete(values, own.name)
		if json.Unmarshal(value, own.text) != nil {
			ds = append(ds, Diagnostic{Summary: "must be a string", Path: []string{own.name}})
		}
	}
	if taken {
		config, _ = json.Marshal(values) // of what was read; it cannot fail
	}
	return config, append(ds, l.read(via, bind)...)
}
