package sdk_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// Tokened fetches a token in the background, and dials with the newest.
type Tokened struct {
	Server   string `tunneld:"server,required" doc:"host:port of the server"`
	TokenURL string `tunneld:"token_url,required" doc:"where the token comes from"`

	stop  context.CancelFunc
	done  chan struct{}
	token atomic.Pointer[string]
}

// Dial sends the token and leaves the rest to the far end.
func (t *Tokened) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	token := t.token.Load()
	if token == nil {
		return nil, &sdk.DialError{Stage: sdk.StageCredential, Reason: sdk.ReasonUnavailable, Retryable: true, Message: "there is no token yet"}
	}
	conn, err := req.Connect(ctx, t.Server)
	if err != nil {
		return nil, err
	}
	req.Enter(sdk.StageHandshake)
	err = sdk.Bound(ctx, conn, func() error {
		_, err := fmt.Fprintf(conn, "%s %s\n", *token, req.Target)
		return err
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return sdk.Direct(conn, nil), nil
}

// Start begins the background work. It does not wait for the first token.
func (t *Tokened) Start(env *sdk.Env) error {
	outbound, err := env.Outbound.OrEnvironment()
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSHandshakeTimeout: 10 * time.Second}
	outbound.Within(10 * time.Second).Use(transport)
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}

	ctx, stop := context.WithCancel(context.Background())
	t.stop, t.done = stop, make(chan struct{})
	go func() {
		defer close(t.done)
		defer transport.CloseIdleConnections()
		for ctx.Err() == nil {
			token, err := fetch(ctx, client, t.TokenURL)
			expires := time.Now().Add(time.Hour)
			if err != nil {
				env.Log.Warn("no token", "err", err)
				env.Report(sdk.Status{Health: sdk.HealthFailing, Message: err.Error()})
				expires = time.Now().Add(time.Minute)
			} else {
				t.token.Store(&token)
				env.Report(sdk.Status{Health: sdk.HealthOK, CredentialExpires: expires, CredentialRenewed: time.Now()})
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Until(expires) / 2):
			}
		}
	}()
	return nil
}

// Close ends what Start began. Tunnels live on.
func (t *Tokened) Close() error {
	t.stop()
	<-t.done
	return nil
}

// fetch gets a token. Its errors show no secret.
func fetch(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", sdk.NetworkError(sdk.StageCredential, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		refused := sdk.HTTPRefusal(sdk.StageCredential, resp.StatusCode, resp.Header)
		refused.Message = "the token service answers " + resp.Status
		return "", refused
	}
	token, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return strings.TrimSpace(string(token)), err
}

// An upstream that prepares something has Start, and Close to end it.
func ExampleStarter() {
	_ = sdk.Plugin{Name: "tokened", Version: "1.0.0", New: func() sdk.Dialer { return new(Tokened) }}
}
