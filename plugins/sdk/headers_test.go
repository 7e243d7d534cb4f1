package sdk

import (
	"slices"
	"strings"
	"testing"
)

func TestValidateHeaders(t *testing.T) {
	for name, tt := range map[string]struct {
		headers map[string]string
		want    []string // "path: the beginning of the summary"
	}{
		"none":                {nil, nil},
		"fine":                {map[string]string{"X-Api-Key": "k", "User-Agent": "corp/1 (x; y)", "X-Empty": "", "X_Under": "a\tb"}, nil},
		"own, in any case":    {map[string]string{"sec-websocket-KEY": "hidden"}, []string{"headers.sec-websocket-KEY: the header Sec-WebSocket-Key belongs to the request itself"}},
		"a space in the name": {map[string]string{"X Key": "hidden"}, []string{"headers.X Key: not the name of a header"}},
		"no name":             {map[string]string{"": "hidden"}, []string{"headers.: not the name of a header"}},
		"another line":        {map[string]string{"X-A": "hidden\r\nX-B: c"}, []string{"headers.X-A: the header's value has a line break"}},
		"the file's line end": {map[string]string{"X-A": "hidden\n"}, []string{"headers.X-A: the header's value has a line break"}},
		"an outer space":      {map[string]string{"X-A": " hidden"}, []string{"headers.X-A: the header's value has a line break"}},
		"twice":               {map[string]string{"X-A": "hidden", "x-a": "hidden"}, []string{"headers.x-a: the header is given twice"}},
		"several":             {map[string]string{"Upgrade": "hidden", ":x": "hidden"}, []string{"headers.:x: not the name", "headers.Upgrade: the header Upgrade belongs"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range ValidateHeaders(tt.headers, []string{"Upgrade", "Sec-WebSocket-Key"}, "headers") {
				got = append(got, strings.Join(d.Path, ".")+": "+d.Summary)
				if d.Warning || d.Detail == "" || strings.Contains(d.Summary+d.Detail, "hidden") {
					t.Errorf("%+v", d)
				}
			}
			if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestHeaderSecrets(t *testing.T) {
	got := HeaderSecrets(map[string]string{"Authorization": "Bearer t0ken", "Host": "app.example"})
	slices.Sort(got)
	if !slices.Equal(got, []string{"Bearer t0ken", "t0ken"}) {
		t.Errorf("%q", got)
	}
}
