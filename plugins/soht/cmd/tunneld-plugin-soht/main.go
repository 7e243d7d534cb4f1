// Command tunneld-plugin-soht is the soht plugin as a process of its own.
package main

import (
	"os"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/soht"
)

func main() { os.Exit(sdk.Serve(soht.Plugin())) }
