# On-premise web servers for whatever speaks SOCKS or HTTP CONNECT:
#
#   curl --socks5-hostname 127.0.0.1:1080 http://intranet.corp/
#   curl --proxytunnel --proxy http://127.0.0.1:3128 http://intranet.corp/
#   curl --proxy socks4a://127.0.0.1:8888 http://intranet.corp/
#
# A name is passed on as it is, so it need not exist on this machine. What no
# route takes is refused: with SOCKS reply 02 (91 in SOCKS4), or with status 403 and a body that
# says so.
upstream "sapsocks" "onprem" {
  vcap_services = env("VCAP_SERVICES")
}

listener "socks5" "apps" {
  address = "127.0.0.1:1080"
}

listener "http" "web" {
  address = "127.0.0.1:3128"
}

# All of it on one port.
listener "mixed" "all" {
  address = "127.0.0.1:8888"
}

route "intranet" {
  match {
    hosts = ["*.corp"]
    ports = [80, 443, "8000-8999"]
  }
  upstreams = [upstream.sapsocks.onprem]
}
