// Command tunneld-plugin-websocks is the websocks plugin as a program of its
// own. tunneld starts it.
package main

import (
	"os"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/websocks"
)

func main() { os.Exit(sdk.Serve(websocks.Plugin())) }
