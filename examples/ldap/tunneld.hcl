# An on-premise LDAP directory at 127.0.0.1:1389:
#
#   ldapsearch -x -H ldap://127.0.0.1:1389 -b dc=corp '(uid=ada)'
#
# Directories' clients keep connections open without a word, so there is no idle
# timeout here: keep-alive finds what is dead.
upstream "sapsocks" "onprem" {
  vcap_services = env("VCAP_SERVICES")
}

listener "tcp" "ldap" {
  address = "127.0.0.1:1389"
  target  = "directory.corp:389"
}

route "directory" {
  upstreams = [upstream.sapsocks.onprem]
}
