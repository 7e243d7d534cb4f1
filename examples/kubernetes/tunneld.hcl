# tunneld as a sidecar on Kubernetes: see deployment.yaml beside this file.
daemon {
  # Where tunneld status finds the daemon. The folder is made, since others might
  # write to the mounted /tmp itself.
  run_dir = "/tmp/tunneld"
  # A native sidecar is told to end after the application. Where it runs as one of
  # the containers (before Kubernetes 1.29) it is told together with the application,
  # which may need a new connection for its end.
  shutdown_delay = "5s"
}

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
