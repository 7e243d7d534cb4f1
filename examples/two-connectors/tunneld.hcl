# Two Cloud Connectors of one subaccount, told apart by their location ids. The
# second is tried when the first is not connected, does not answer or cannot reach
# the host; a host that it has no mapping for is refused, since that is no failure
# but its answer. To try it offline:
#
#   tunneld emulate sapsocks --map berlin/orders-db.corp:5432=127.0.0.1:15432 --map walldorf/orders-db.corp:5432=127.0.0.1:15432
locals {
  binding = env("VCAP_SERVICES")
}

upstream "sapsocks" "berlin" {
  vcap_services = local.binding
  location_id   = "berlin"
}

upstream "sapsocks" "walldorf" {
  vcap_services = local.binding
  location_id   = "walldorf"
}

listener "tcp" "orders" {
  address = "127.0.0.1:5432"
  target  = "orders-db.corp:5432"
}

route "orders" {
  upstreams = [upstream.sapsocks.berlin, upstream.sapsocks.walldorf]
}
