package main

import (
	"fmt"
	"runtime"

	"github.com/tunneld/tunneld/internal/version"
)

func versionLine() string {
	return fmt.Sprintf("tunneld %s (%s, %s/%s)", version.Text(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
