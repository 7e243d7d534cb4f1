upstream "direct" "local" {}
upstream "sapsocks" "onprem" {}
upstream "acme" "other" {}

listener "tcp" "orders" {
  address = "127.0.0.1:5432"
  target  = "orders-db.corp:5432"
}
listener "socks5" "apps" { address = "127.0.0.1:1080" }
listener "http" "web" { address = "127.0.0.1:3128" }

route "rest" {
  upstreams = [upstream.direct.local, upstream.sapsocks.onprem, upstream.acme.other]
}
