# Connections to 10.20.0.0/16 and fd00:20::/32 go through a bastion, though the
# programs that make them know nothing of it: see README.md.
upstream "direct" "bastion" {
  via = "socks5://bastion.corp:1080"
}

# This machine's own programs.
listener "redirect" "own" {
  addresses = ["127.0.0.1:12345", "[::1]:12345"]
}

# Others, whose router this machine is.
listener "redirect" "lan" {
  address = "[::]:12346"
  allow   = ["192.168.7.0/24", "fd00:7::/64"]
}

route "corp" {
  match { hosts = ["10.20.0.0/16", "fd00:20::/32"] }
  upstreams = [upstream.direct.bastion]
}
