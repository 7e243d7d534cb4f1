package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/internal/userfile"
)

const (
	// maxFile bounds an htpasswd file, in bytes: some 50,000 users.
	maxFile = 4 << 20
	// maxCost bounds what a check costs: 14 is about a second of a core, and each step
	// doubles it.
	maxCost = 14
	// maxLines bounds the lines of a file that problems are told of.
	maxLines = 10
)

// Problem is why an htpasswd file, or a line of it, is of no use. Its text holds nothing
// of the line.
type Problem struct {
	File string
	Line int // 0: it is the whole file's
	Text string
}

// String returns "FILE, line N: TEXT".
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s, line %d: %s", p.File, p.Line, p.Text)
}

// content is what an htpasswd file held. It never changes.
type content struct {
	sum    userfile.Sum      // zero: it could not be read
	hashes map[string]string // by user
	// dummy is what the password of somebody is checked against who is not in the file;
	// empty: nobody is.
	dummy    string
	problems []Problem
}

func readFile(path string) *content {
	f, err := userfile.Read(path, maxFile)
	if err != nil {
		why := err.Error()
		var pe *fs.PathError
		if errors.As(err, &pe) {
			why = pe.Err.Error() // the path is the Problem's
		}
		return &content{problems: []Problem{{File: path, Text: why + ": none of its users can log in"}}}
	}
	c := parse(path, f.Data)
	c.sum = f.Sum()
	return c
}

// parse reads what Apache's htpasswd writes: "USER:HASH" a line, and maybe ":COMMENT".
// Empty lines and those that begin with # are skipped.
func parse(path string, data []byte) *content {
	c := &content{hashes: map[string]string{}}
	lines, cost, wrong := map[string]int{}, 0, 0
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		user, rest, found := strings.Cut(text, ":")
		hash, _, _ := strings.Cut(rest, ":")
		its, why := 0, UserProblem(user)
		switch first := lines[user]; {
		case !found:
			why = "it is not USER:HASH"
		case why != "":
		case first > 0:
			why = fmt.Sprintf("line %d has the same user, and counts", first)
		default:
			its, why = hashCost(hash)
		}
		if why != "" {
			if wrong++; wrong <= maxLines {
				c.problems = append(c.problems, Problem{path, number, why})
			}
			continue
		}
		lines[user], c.hashes[user] = number, hash
		cost = max(cost, its)
	}
	if wrong > maxLines {
		c.problems = append(c.problems, Problem{File: path, Text: fmt.Sprintf("%d more lines are of no use", wrong-maxLines)})
	}
	if len(c.hashes) == 0 {
		c.problems = append(c.problems, Problem{File: path, Text: "it has no user who can log in"})
		return c
	}
	c.dummy = dummyOf(cost)
	return c
}

// dummyOf is a hash of this cost for which no password is known, so that nobody has to make
// it.
func dummyOf(cost int) string {
	return fmt.Sprintf("$2a$%02d$%s", cost, strings.Repeat("t", saltAndDigest))
}

// saltAndDigest is how long the two are in a hash.
const saltAndDigest = 22 + 31

var bcryptRE = regexp.MustCompile(fmt.Sprintf(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{%d}$`, saltAndDigest))

// others are what hashes begin with that htpasswd, or crypt(3), makes beside bcrypt's.
var others = []struct{ begin, name string }{
	{"$apr1$", "MD5"}, {"$1$", "MD5"}, {"{SHA}", "SHA-1"}, {"{SSHA}", "SHA-1"}, {"$5$", "SHA-256"}, {"$6$", "SHA-512"},
	{"$y$", "yescrypt"}, {"$7$", "scrypt"}, {"$argon2", "Argon2"}, {"$2x$", "a bcrypt with a known fault"},
}

// hashCost returns the cost of a bcrypt hash, or why it is none that can be checked.
func hashCost(hash string) (cost int, why string) {
	m := bcryptRE.FindStringSubmatch(hash)
	if m != nil {
		cost, _ = strconv.Atoi(m[1]) // two digits
	}
	switch {
	case m != nil && cost >= 4 && cost <= maxCost: // 4 is bcrypt's least
		return cost, ""
	case m != nil:
		return 0, fmt.Sprintf("the cost of its hash is %d, and has to lie between 4 and %d: make it anew, with htpasswd -B -C 10", cost, maxCost)
	case strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"), strings.HasPrefix(hash, "$2y$"):
		return 0, "its bcrypt hash is not whole: make it anew, with htpasswd -B"
	}
	for _, o := range others {
		if strings.HasPrefix(hash, o.begin) {
			return 0, fmt.Sprintf("its hash is %s, and only bcrypt is accepted: make it anew, with htpasswd -B", o.name)
		}
	}
	return 0, "it has no bcrypt hash: make it anew, with htpasswd -B"
}
