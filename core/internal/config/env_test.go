package config

import (
	"strings"
	"testing"
)

// TestUnsetVariable: a platform that passes a file in place of a variable is noticed.
func TestUnsetVariable(t *testing.T) {
	t.Setenv("ACME_PW_FILE", "/run/secrets/pw")
	t.Setenv("ACME_KEY_FILE_PATH", "/run/secrets/key")
	t.Setenv("ACME_KEY_FILE", "/run/secrets/key")
	for name, want := range map[string]string{
		"ACME_UNSET":    "Set it in tunneld's environment, or write the value another way.",
		"ACME_PW":       `ACME_PW_FILE is set, to the path of a file: write file(env("ACME_PW_FILE")).`,
		"ACME_KEY":      `ACME_KEY_FILE_PATH is set, to the path of a file: write file(env("ACME_KEY_FILE_PATH")).`,
		"VCAP_SERVICES": "Cloud Foundry gives an application this or VCAP_SERVICES_FILE_PATH, and neither is set.",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := envValue(name)
			if err == nil || !strings.HasPrefix(err.detail, want) {
				t.Errorf("%+v, want %q", err, want)
			}
		})
	}
	t.Setenv("VCAP_SERVICES_FILE_PATH", "/etc/cf-service-bindings/vcap_services")
	if _, err := envValue("VCAP_SERVICES"); err == nil || !strings.Contains(err.detail, `write file(env("VCAP_SERVICES_FILE_PATH"))`) {
		t.Errorf("%+v", err)
	}
}
