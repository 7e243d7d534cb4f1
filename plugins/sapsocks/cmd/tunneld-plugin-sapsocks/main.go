// Command tunneld-plugin-sapsocks is the sapsocks plugin as a program of its
// own. It is started by tunneld, not by hand.
package main

import (
	"os"

	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sdk"
)

func main() { os.Exit(sdk.Serve(sapsocks.Plugin())) }
