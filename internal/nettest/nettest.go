// Package nettest is for tests: peers that serve connections, the two ends of one, free
// addresses, folders for unix sockets, and on Linux a network whose link can be cut, so
// that packets are lost silently.
package nettest
