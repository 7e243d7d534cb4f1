// Package nettest is for tests: peers that serve connections, the two ends of one, free
// addresses, folders for unix sockets, and on Linux a network whose link can be cut, so
// that packets are lost silently.
package nettest

// OpenTargets is the line in the block of a listener whose clients name the target, by which
// they reach this machine's servers, too.
const OpenTargets = ` allow_targets = ["0.0.0.0/0", "::/0", "127.0.0.0/8", "::1"]
`
