# An HTTP or SOCKS5 proxy as an upstream, for programs that know no proxy, or not the
# one that their network wants:
#
#   curl --socks5-hostname 127.0.0.1:1080 https://example.com/
#   curl --socks5-hostname 127.0.0.1:1080 http://build.dmz.corp:8080/
#   redis-cli -p 6379
#
# The web is reached through the company's proxy, whose password only tunneld knows, and
# the DMZ through a SOCKS5 proxy, from the address that the firewall lets through. The
# Redis server wants TLS, which its client need not speak. The company's proxy has to
# allow CONNECT to the ports: most do so for 443 alone.
locals {
  proxy = "http://tunneld:${trimspace(file("/run/secrets/proxy"))}@proxy.corp:3128"
}

upstream "direct" "web" {
  via = local.proxy
}

upstream "direct" "dmz" {
  via  = "socks5://bastion.corp:1080"
  bind = "192.0.2.10"
}

upstream "direct" "redis" {
  via = local.proxy
  tls {
    ca_file = "/run/secrets/redis-ca.pem"
  }
}

listener "socks5" "apps" {
  address = "127.0.0.1:1080"
}

listener "tcp" "redis" {
  address = "127.0.0.1:6379"
  target  = "redis.example.com:443"
}

route "redis" {
  match {
    listeners = [listener.tcp.redis]
  }
  upstreams = [upstream.direct.redis]
}

route "dmz" {
  match {
    hosts = ["*.dmz.corp"]
  }
  upstreams = [upstream.direct.dmz]
}

route "web" {
  match {
    ports = [443]
  }
  upstreams = [upstream.direct.web]
}
