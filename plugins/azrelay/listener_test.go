package azrelay_test

import (
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/tunneld/tunneld/plugins/azrelay/azrelayemu"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
)

// listen opens a control channel and accepts nothing.
func listen(t testing.TB, s *azrelayemu.Server, path string) net.Conn {
	t.Helper()
	token := sas.Sign("http://127.0.0.1/"+path, "listen", "bGlzdGVuZXIga2V5", time.Now().Add(time.Hour))
	conn, br, _, err := ws.Dial(within(t), s.URL()+"/$hc/"+path+"?sb-hc-action=listen&sb-hc-token="+url.QueryEscape(token))
	if err != nil {
		t.Fatal(err)
	}
	if br != nil {
		t.Fatal("the service spoke first")
	}
	return conn
}
