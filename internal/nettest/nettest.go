// Package nettest gives tests a peer that serves connections, and on Linux a network
// of their own whose link can be cut: packets are then lost silently.
package nettest
