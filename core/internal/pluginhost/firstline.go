package pluginhost

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxFirstLine is how much of a file Linux looks at for a line with "#!", in bytes.
const maxFirstLine = 256

// scriptLine is the first line of a script, as Linux reads it: execve(2).
type scriptLine struct {
	interpreter string
	argument    string // all the rest
	cut         bool   // it is longer than Linux reads
}

// firstLine reads the line from the beginning of a file. script says that there is one.
func firstLine(head []byte) (l scriptLine, script bool) {
	rest, script := bytes.CutPrefix(head, []byte("#!"))
	if !script {
		return scriptLine{}, false
	}
	line, _, ends := bytes.Cut(rest, []byte("\n"))
	l.cut = !ends && len(head) == maxFirstLine
	text := strings.Trim(string(line), " \t")
	l.interpreter = text
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		l.interpreter, l.argument = text[:i], strings.Trim(text[i:], " \t")
	}
	return l, true
}

// crlf says that the line ends with CR LF; the CR is then part of its last word.
func (l scriptLine) crlf() bool { return strings.HasSuffix(l.interpreter+l.argument, "\r") }

// mendCRLF says what is wrong with such a line.
func mendCRLF(path string) string {
	return fmt.Sprintf("its first line ends with CR LF, and the CR counts as part of the name: save it with LF alone (sed -i 's/\\r$//' %s)", path)
}

// hindrance is the function hindrance for a script.
func (l scriptLine) hindrance(path string, errno syscall.Errno, depth int) string {
	switch {
	case l.crlf():
		return mendCRLF(path)
	case l.interpreter == "":
		return "no interpreter follows the #! of its first line: write one there, such as #!/bin/sh"
	case l.cut && l.argument == "":
		return fmt.Sprintf("its first line is longer than Linux reads (%d bytes): use a shorter path, or a link, for the interpreter", maxFirstLine-1)
	case !filepath.IsAbs(l.interpreter):
		return fmt.Sprintf("its first line names the interpreter %q without a path: write #!/usr/bin/env %[1]s", l.interpreter)
	case depth == 0 || errno == syscall.ELOOP:
		return fmt.Sprintf("its first line names the interpreter %s, which is a script, whose interpreter is one again, and so on: name a program", l.interpreter)
	}
	info, err := os.Stat(l.interpreter)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("its first line names the interpreter %s, which does not exist: install it, or correct the line", l.interpreter)
	case err != nil:
		return fmt.Sprintf("its first line names the interpreter %s, which cannot be used: %v", l.interpreter, err)
	case info.IsDir():
		return fmt.Sprintf("its first line names the interpreter %s, which is a folder: correct the line", l.interpreter)
	}
	if why := hindrance(l.interpreter, errno, depth-1); why != "" {
		return fmt.Sprintf("its first line names the interpreter %s, which cannot be used: %s", l.interpreter, why)
	}
	return ""
}
