package auth

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// What htpasswd of Apache 2.4 writes, of cost 4 where it can be chosen.
const (
	ofAlice = "$2y$04$bFVU/v9MeVzmCJHc6n3Lue4pPSnIeia/VWjLSBehAJ0L4S.lKsZdW" // "p w"
	ofGrace = "$2y$05$0UdF93VLcemiIny0SJx6yOgyZvPbdD4fOncYc4fWQrbsqtIDDOqxy" // "geheim"
	ofMD5   = "$apr1$n/7.zMFg$gPgxi7/GPT3/tdPuFtRi80"
	ofSHA1  = "{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI="
	ofCrypt = "6MKaJ3e8sg/Qg"
	ofSHA2  = "$5$wuG2RTQtfTodmP/v$Wy7c22KMHffvRQO5XptN6uTKufcOgiRidahg1/bv20."
	ofSHA5  = "$6$JxThm6W7NSCjps6K$ITrcxJmpcKCpPA6UO.dK.MfEFqUAWlM1JadpgY6qyCihVpJlYYFN6KfdZaE3hHqcoWcKtncebbVp4abqccO.s0"
)

// withCost is a hash of a cost.
func withCost(cost int) string { return fmt.Sprintf("$2y$%02d$%s", cost, ofAlice[len("$2y$04$"):]) }

func TestParse(t *testing.T) {
	const nobody = "it has no user who can log in"
	for name, tt := range map[string]struct {
		text     string
		users    []string
		problems []string // each a part of one, with its line
	}{
		"as htpasswd writes it": {"alice:" + ofAlice + "\n\n", []string{"alice"}, nil},
		"each of bcrypt's names": {
			"a:" + strings.Replace(ofAlice, "2y", "2a", 1) + "\nb:" + strings.Replace(ofAlice, "2y", "2b", 1) + "\ny:" + ofAlice, []string{"a", "b", "y"}, nil,
		},
		"comments, empty lines, line ends of DOS": {"# users\r\n\r\n  alice:" + ofAlice + " \r\n#bob:x\r\n", []string{"alice"}, nil},
		"a comment behind the hash":               {"alice:" + ofAlice + ":Alice of the third floor", []string{"alice"}, nil},
		"names beyond ASCII, with spaces":         {"jörg k:" + ofAlice, []string{"jörg k"}, nil},
		"empty":                                   {"", nil, []string{nobody}},
		"comments alone":                          {"# nobody\n", nil, []string{nobody}},
		"other hashes": {
			"a:" + ofMD5 + "\nb:" + ofSHA1 + "\nc:" + ofCrypt + "\nd:" + ofSHA2 + "\ne:" + ofSHA5 + "\nf:$2x$" + ofAlice[4:] + "\ng:$y$j9T$x$y\nh:$argon2id$v=19$x\nok:" + ofAlice,
			[]string{"ok"},
			[]string{"line 1: its hash is MD5", "line 2: its hash is SHA-1", "line 3: it has no bcrypt hash", "line 4: its hash is SHA-256", "line 5: its hash is SHA-512", "line 6: its hash is a bcrypt with a known fault", "line 7: its hash is yescrypt", "line 8: its hash is Argon2"},
		},
		"plain, and none":    {"alice:geheim\nbob:\ncarol", nil, []string{"line 1: it has no bcrypt hash", "line 2: it has no bcrypt hash", "line 3: it is not USER:HASH", nobody}},
		"a hash cut short":   {"alice:" + ofAlice[:59], nil, []string{"line 1: its bcrypt hash is not whole", nobody}},
		"a hash too long":    {"alice:" + ofAlice + "x", nil, []string{"line 1: its bcrypt hash is not whole", nobody}},
		"a foreign sign":     {"alice:" + ofAlice[:50] + "=" + ofAlice[51:], nil, []string{"line 1: its bcrypt hash is not whole", nobody}},
		"a cost too high":    {"alice:" + withCost(15) + "\nbob:" + withCost(14), []string{"bob"}, []string{"line 1: the cost of its hash is 15, and has to lie between 4 and 14"}},
		"a cost too low":     {"alice:" + withCost(3), nil, []string{"the cost of its hash is 3", nobody}},
		"one user twice":     {"alice:" + ofAlice + "\n\nalice:" + ofGrace, []string{"alice"}, []string{"line 3: line 1 has the same user, and counts"}},
		"the first is wrong": {"alice:" + ofMD5 + "\nalice:" + ofGrace, []string{"alice"}, []string{"line 1: its hash is MD5"}},
		"no user":            {":" + ofAlice, nil, []string{"line 1: a user's name is empty", nobody}},
		"a long user":        {strings.Repeat("u", 256) + ":" + ofAlice, nil, []string{"line 1: a user's name has 256 bytes", nobody}},
		"a user of no UTF-8": {"a\xff:" + ofAlice, nil, []string{"line 1: a user's name is not UTF-8", nobody}},
		"a control in it":    {"a\x1bb:" + ofAlice, nil, []string{"line 1: a user's name has a control character", nobody}},
		"many":               {strings.Repeat("x\n", 500) + "alice:" + ofAlice, []string{"alice"}, append(slices.Repeat([]string{"it is not USER:HASH"}, maxLines), "490 more lines are of no use")},
	} {
		t.Run(name, func(t *testing.T) {
			c := parse("/etc/users", []byte(tt.text))
			if got := slices.Sorted(maps.Keys(c.hashes)); !slices.Equal(got, tt.users) {
				t.Errorf("users %q, want %q", got, tt.users)
			}
			if (c.dummy == "") != (len(tt.users) == 0) {
				t.Errorf("dummy %q", c.dummy)
			}
			if len(c.problems) != len(tt.problems) {
				t.Fatalf("problems %v, want %q", c.problems, tt.problems)
			}
			for i, p := range c.problems {
				if got := p.String(); !strings.Contains(got, tt.problems[i]) || !strings.HasPrefix(got, "/etc/users") {
					t.Errorf("problem %q, want %q", got, tt.problems[i])
				}
			}
		})
	}
}

// TestDummyCost: who is not in the file costs what the dearest of it does.
func TestDummyCost(t *testing.T) {
	c := parse("f", []byte("a:"+withCost(6)+"\nb:"+withCost(11)+"\nc:"+withCost(4)+"\nd:"+withCost(31)))
	if cost, err := bcrypt.Cost([]byte(c.dummy)); err != nil || cost != 11 {
		t.Errorf("cost %d, %v", cost, err)
	}
}

// TestUnreadableFile: whatever is in the way, nobody gets in, and the reason is told
// once, with the file's name.
func TestUnreadableFile(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file or directory: none of its users can log in",
		dir:                        "it is a folder",
		large:                      "it is larger than 4 MiB",
	} {
		c := readFile(path)
		if len(c.problems) != 1 || len(c.hashes) > 0 || c.dummy != "" {
			t.Fatalf("%+v", c)
		}
		if got := c.problems[0].String(); !strings.Contains(got, want) || strings.Count(got, path) != 1 {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, hash := range []string{ofAlice, ofMD5, ofSHA1, ofCrypt, ofSHA2, withCost(15), withCost(0), ""} {
		f.Add([]byte("alice:" + hash + "\r\n# x\nbob:" + hash + ":more\n:\nalice:" + hash))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := parse("f", data)
		for user, hash := range c.hashes {
			if UserProblem(user) != "" {
				t.Errorf("user %q: %s", user, UserProblem(user))
			}
			if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost > maxCost || len(hash) != 60 {
				t.Errorf("hash %q: cost %d, %v", hash, cost, err)
			}
			if cost, err := bcrypt.Cost([]byte(c.dummy)); err != nil || cost > maxCost {
				t.Errorf("dummy %q: cost %d, %v", c.dummy, cost, err)
			}
		}
		if len(c.problems) > maxLines+2 || len(c.hashes) == 0 && len(c.problems) == 0 {
			t.Errorf("%d problems, and %d users", len(c.problems), len(c.hashes))
		}
		// Of what is on a line, no problem tells more than its own words have.
		for _, p := range c.problems {
			if text := p.String(); len(text) > 200 || strings.ContainsRune(text, '\n') {
				t.Errorf("%q", text)
			}
		}
	})
}
