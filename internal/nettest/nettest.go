// Package nettest gives tests on Linux a network of their own whose link can be
// cut: what is sent then goes nowhere, and nobody is told.
package nettest
