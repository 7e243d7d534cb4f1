package status

// Event is a reload that begins or has ended.
type Event struct {
	// Reload is how it went; nil: it begins.
	Reload *Reload
	// Generation is the number of the configuration in force.
	Generation uint64
	// Listeners is how many listeners it serves.
	Listeners int
}
