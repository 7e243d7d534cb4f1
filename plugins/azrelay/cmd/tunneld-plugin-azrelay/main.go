// Command tunneld-plugin-azrelay is the azrelay plugin as a program of its own.
package main

import (
	"os"

	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/sdk"
)

func main() { os.Exit(sdk.Serve(azrelay.Plugin())) }
