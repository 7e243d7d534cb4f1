# tunneld as a sidecar on Kubernetes: see deployment.yaml beside this file.
upstream "sapsocks" "onprem" {
  service_binding = "/etc/secrets/sapcp/connectivity/my-connectivity"
  # Some plans carry no host and port in the binding: then they stand here.
  proxy = "connectivity-proxy.kyma-system.svc.cluster.local:20004"
}

listener "tcp" "orders" {
  address = "127.0.0.1:5432"
  target  = "orders-db.corp:5432" # the virtual host and port in the Cloud Connector
}

route "onprem" {
  upstreams = [upstream.sapsocks.onprem]
}
