//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

const directory = `dn: dc=corp
objectClass: dcObject
objectClass: organization
o: The Corporation
dc: corp

dn: uid=ada,dc=corp
objectClass: inetOrgPerson
uid: ada
cn: Ada Lovelace
sn: Lovelace
mail: ada@corp
`

// startDirectory runs OpenLDAP's server with a few entries and returns its
// address and the administrator's password.
func startDirectory(t *testing.T) (address, password string) {
	t.Helper()
	slapd := proctest.Tool(t, "slapd")
	slapadd := proctest.Tool(t, "slapadd")
	dir := t.TempDir()
	password = "of the scenario"
	config := fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile %[1]s/pid
database mdb
maxsize 10485760
suffix "dc=corp"
rootdn "cn=admin,dc=corp"
rootpw "%[2]s"
directory %[1]s
`, dir, password)
	conf, ldif := filepath.Join(dir, "slapd.conf"), filepath.Join(dir, "init.ldif")
	if err := os.WriteFile(conf, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ldif, []byte(directory), 0o600); err != nil {
		t.Fatal(err)
	}
	mustOutput(t, exec.Command(slapadd, "-f", conf, "-l", ldif))
	address = nettest.FreeAddress(t)
	proctest.Start(t, exec.Command(slapd, "-d", "0", "-f", conf, "-h", "ldap://"+address)).Listens(t, address)
	return address, password
}

func TestLDAP(t *testing.T) {
	ldapsearch, ldapmodify := proctest.Tool(t, "ldapsearch"), proctest.Tool(t, "ldapmodify")
	backend, password := startDirectory(t)
	emu := connectivity(t, map[string]string{"directory.corp:389": backend})
	d := startExample(t, "ldap", emu)
	url := "ldap://" + d.addresses["tcp.ldap"]

	out := mustOutput(t, exec.Command(ldapsearch, "-x", "-LLL", "-H", url, "-b", "dc=corp", "(uid=ada)", "mail"))
	if !strings.Contains(out, "mail: ada@corp\n") {
		t.Errorf("read %s", out)
	}
	admin := []string{"-x", "-H", url, "-D", "cn=admin,dc=corp", "-w", password}
	modify := exec.Command(ldapmodify, admin...)
	modify.Stdin = strings.NewReader("dn: uid=ada,dc=corp\nchangetype: modify\nreplace: mail\nmail: countess@corp\n")
	mustOutput(t, modify)
	out = mustOutput(t, exec.Command(ldapsearch, append(admin, "-LLL", "-b", "dc=corp", "(mail=countess@corp)", "cn")...))
	if !strings.Contains(out, "cn: Ada Lovelace\n") {
		t.Errorf("read %s", out)
	}

	if err := emu.SetConnector("", nil); err != nil {
		t.Fatal(err)
	}
	if out, err := output(t, exec.Command(ldapsearch, "-x", "-H", url, "-b", "dc=corp")); err == nil {
		t.Errorf("without a Cloud Connector: %s", out)
	}
	d.await(1, "msg", "connection failed", "reason", "unavailable", "target", "directory.corp:389")
}
