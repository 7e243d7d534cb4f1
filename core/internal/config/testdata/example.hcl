log {
  level  = "info"
  format = "text"
  access = true
}
metrics { address = "127.0.0.1:9464" }
control { address = "unix:///run/tunneld/control.sock" }
daemon {
  plugin_dir       = "/usr/lib/tunneld/plugins"
  shutdown_timeout = "30s"
  drain_timeout    = "10m"
  max_connections  = 0
}

plugin "acme" {
  command = ["/usr/lib/tunneld/tunneld-plugin-acme"]
  sha256  = "ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB"
  files   = {}
  env     = { ACME_REGION = "eu" }
}

upstream "direct" "local" {
  tcp {
    nodelay            = true
    keepalive_idle     = "30s"
    keepalive_interval = "10s"
    keepalive_count    = 6
    user_timeout       = "0s"
  }
}

upstream "sapsocks" "onprem" {
  vcap_services = env("VCAP_SERVICES")
  instance      = "my-connectivity"
}

upstream "acme" "other" {}

listener "tcp" "orders" {
  address = "127.0.0.1:5432"
  target  = "orders-db.corp:5432"
  limits {
    max_connections = 0
    max_per_source  = 0
  }
  timeouts {
    handshake  = "10s"
    dial       = "35s"
    idle       = "0s"
    half_close = "1m"
    lifetime   = "0s"
  }
  tcp {
    nodelay            = true
    keepalive_idle     = "30s"
    keepalive_interval = "10s"
    keepalive_count    = 6
    user_timeout       = "0s"
    backlog            = 0
  }
  open = false
}

listener "socks5" "apps" {
  address = "127.0.0.1:1080"
  limits {
    max_connections = 0
    max_per_source  = 0
  }
  timeouts {
    handshake  = "10s"
    dial       = "35s"
    idle       = "0s"
    half_close = "1m"
    lifetime   = "0s"
  }
  tcp {
    nodelay            = true
    keepalive_idle     = "30s"
    keepalive_interval = "10s"
    keepalive_count    = 6
    user_timeout       = "0s"
    backlog            = 0
  }
  open = false
}

listener "http" "web" {
  address = "127.0.0.1:3128"
  limits {
    max_connections = 0
    max_per_source  = 0
  }
  timeouts {
    handshake  = "10s"
    dial       = "35s"
    idle       = "0s"
    half_close = "1m"
    lifetime   = "0s"
  }
  tcp {
    nodelay            = true
    keepalive_idle     = "30s"
    keepalive_interval = "10s"
    keepalive_count    = 6
    user_timeout       = "0s"
    backlog            = 0
  }
  open = false
}

route "databases" {
  match {
    listeners = [listener.tcp.orders]
    hosts     = ["*.corp", "db.example", "10.0.0.0/8"]
    ports     = [5432, "9000-9100"]
  }
  upstreams = [upstream.sapsocks.onprem, upstream.direct.local]
}

route "rest" { upstreams = [upstream.direct.local, upstream.acme.other] }
