package pluginv1

import "strings"

// Text returns the stage's name as users see it: "connect", "handshake". An
// unspecified stage is "unknown".
func (s Stage) Text() string { return text(s.String(), "STAGE_") }

// Text returns the reason's name as users see it: "refused", "not_found".
func (r Reason) Text() string { return text(r.String(), "REASON_") }

// Text returns the data path's name as users see it: "direct", "relay".
func (p DataPath) Text() string { return text(p.String(), "DATA_PATH_") }

// Text returns the kind's name as users see it: "string", "duration".
func (k Kind) Text() string { return text(k.String(), "KIND_") }

// Text returns which targets are taken: "port", "label".
func (t Targets) Text() string { return text(t.String(), "TARGETS_") }

// Text returns what the path leads to, as users see it: "file", "folder", "any".
func (p PathUse) Text() string { return text(p.String(), "PATH_USE_") }

// Text returns the health's name as users see it: "ok", "failing".
func (h Health) Text() string { return text(h.String(), "HEALTH_") }

func text(name, prefix string) string {
	short, ok := strings.CutPrefix(name, prefix)
	if !ok || short == "UNSPECIFIED" {
		return "unknown"
	}
	return strings.ToLower(short)
}
