# SSH and SFTP to on-premise hosts, two ways: through the SOCKS5 listener to any
# host that the route allows (ssh_config beside this file has the ProxyCommand),
# and through a port of its own for a program that can set host and port alone:
#
#   ssh -F ssh_config build.corp
#   sftp -P 2222 deploy@127.0.0.1
upstream "sapsocks" "onprem" {
  vcap_services = env("VCAP_SERVICES")
}

listener "socks5" "ssh" {
  address = "127.0.0.1:1080"
}

listener "tcp" "files" {
  address = "127.0.0.1:2222"
  target  = "files.corp:22"
}

route "ssh" {
  match {
    hosts = ["*.corp"]
    ports = [22]
  }
  upstreams = [upstream.sapsocks.onprem]
}
