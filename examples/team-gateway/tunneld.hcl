# The door of a team's network: its people come in by their certificates, and the web
# servers behind it, which speak TLS themselves, by the names that browsers ask for. The
# page beside this file tries it.
upstream "direct" "inside" {}

# A service that knows neither TLS nor users. Whoever holds a certificate by the team's
# authority that names one of its people may come in, and is named in the log.
listener "tcp" "status" {
  address = "127.0.0.1:7443" # or ":7443", to be reached from everywhere
  target  = "127.0.0.1:7080"
  allow   = ["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16"]
  tls {
    cert_file      = "certificates/gateway.pem"
    key_file       = "certificates/gateway.key"
    client_ca_file = "certificates/ca.pem"
    allow_san      = ["spiffe://team.example/people/*"]
  }
  limits {
    max_per_user = 20
  }
}

# Web servers, by the name in the client's TLS handshake. Nothing is decrypted here: each
# server shows its own certificate.
listener "sni" "web" {
  address       = "127.0.0.1:8443"
  port          = 9443
  allow         = ["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16"]
  allow_targets = ["127.0.0.0/8", "10.0.0.0/8"]
}

route "status" {
  match {
    listeners = [listener.tcp.status]
  }
  upstreams = [upstream.direct.inside]
}

route "web" {
  match {
    listeners = [listener.sni.web]
    hosts     = ["wiki.team.example", "builds.team.example"]
  }
  upstreams = [upstream.direct.inside]
}
