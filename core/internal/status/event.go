package status

// Event is a reload that begins or has ended.
type Event struct {
	// Reload is how it went; nil: it begins.
	Reload *Reload
	// Generation is the one in force, and Listeners how many it serves.
	Generation uint64
	Listeners  int
}
