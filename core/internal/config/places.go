package config

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// FindControl returns control.address and daemon.run_dir of a configuration, even
// of a broken one, since commands have to find the daemon of a broken
// configuration. A text is empty if the configuration does not have it, or cannot
// be read; read says whether all of its files were.
func FindControl(path string) (address, runDir string, read bool) {
	cfg, _ := Parse(path)
	address, runDir = cfg.Control.Address, cfg.Daemon.RunDir
	names, _, problem := configFiles(path)
	read = problem == ""
	for _, name := range names {
		f := cfg.src.files[name]
		if f == nil {
			read = false
			continue
		}
		if f.broken == 0 {
			continue
		}
		found := looseControl(f.src)
		address, runDir = cmp.Or(found["control.address"], address), cmp.Or(found["daemon.run_dir"], runDir)
	}
	return address, runDir, read
}

// looseControl reads the attributes of control and daemon blocks in a file of which
// the parser makes nothing. It goes by lines, each on its own, since a text without its
// end turns text and code about in all that follows. Only plain texts at the beginning
// of a line or block count: no comments, no templates.
func looseControl(src []byte) map[string]string {
	found := map[string]string{}
	block := ""
	for line := range bytes.Lines(src) {
		tokens, _ := hclsyntax.LexConfig(line, "", hcl.InitialPos)
		if word := string(tokens[0].Bytes); (word == "control" || word == "daemon") && len(tokens) > 2 && tokens[1].Type == hclsyntax.TokenOBrace {
			block, tokens = word, tokens[2:]
		}
		if block != "" && startsWith(tokens, hclsyntax.TokenIdent, hclsyntax.TokenEqual, hclsyntax.TokenOQuote, hclsyntax.TokenQuotedLit, hclsyntax.TokenCQuote) {
			if text := string(tokens[3].Bytes); !strings.ContainsAny(text, `\$%`) {
				found[block+"."+string(tokens[0].Bytes)] = text
			}
		}
		if slices.ContainsFunc(tokens, func(t hclsyntax.Token) bool { return t.Type == hclsyntax.TokenCBrace }) {
			block = ""
		}
	}
	return found
}

func startsWith(tokens hclsyntax.Tokens, types ...hclsyntax.TokenType) bool {
	return len(tokens) >= len(types) && slices.EqualFunc(tokens[:len(types)], types, func(t hclsyntax.Token, typ hclsyntax.TokenType) bool { return t.Type == typ })
}
