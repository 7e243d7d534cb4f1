//go:build !linux

package follow

// events tell nothing here: kqueue holds every file of a folder open.
type events struct{ c chan struct{} }

func newEvents() events { return events{} }

func (events) close() {}

func (events) watch(map[string]bool) bool { return false }
