package config

import "regexp"

// What FindControl looks for in a file that the parser makes nothing of. Only
// plain texts at the beginning of a line or block count: no comments, no
// templates.
var (
	looseBlock     = regexp.MustCompile(`(?m)^[ \t]*(control|daemon)[ \t]*\{([^}]*)`)
	looseAttribute = regexp.MustCompile(`(?m)^[ \t]*(address|run_dir)[ \t]*=[ \t]*"([^"\\$%\n]*)"`)
)

// FindControl returns control.address and daemon.run_dir of a configuration that
// may be wrong, and in which only these two matter: who wants to tell the daemon
// of its broken configuration has to find it. A text is empty where the
// configuration does not have it, or cannot be read.
func FindControl(path string) (address, runDir string) {
	cfg, _ := Parse(path)
	address, runDir = cfg.Control.Address, cfg.Daemon.RunDir
	names, _, _ := configFiles(path)
	for _, name := range names {
		if f := cfg.src.files[name]; f == nil || f.broken == 0 {
			continue
		}
		for _, b := range looseBlock.FindAllSubmatch(cfg.src.files[name].src, -1) {
			for _, a := range looseAttribute.FindAllSubmatch(b[2], -1) {
				switch value := string(a[2]); string(b[1]) + "." + string(a[1]) {
				case "control.address":
					address = value
				case "daemon.run_dir":
					runDir = value
				}
			}
		}
	}
	return address, runDir
}
