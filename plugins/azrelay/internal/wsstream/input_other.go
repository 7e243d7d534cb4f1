//go:build !unix

package wsstream

import (
	"errors"
	"net"
)

// newInput returns nil: the connection is read as it is.
func newInput(net.Conn) *input { return nil }

func (in *input) fill() (int, error) { return 0, errors.ErrUnsupported }
