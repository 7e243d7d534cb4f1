# tunneld as a sidecar on Cloud Foundry: see manifest.yml beside this file. On your own
# machine, paste what this prints first:
#
#   tunneld emulate sapsocks --map orders-db.corp:5432=127.0.0.1:15432
daemon {
  # Where tunneld status finds the daemon.
  run_dir = "/tmp/tunneld"
  # The application is told to end at the same time, and may need a new connection
  # for that.
  shutdown_delay = "5s"
  # Cloud Foundry kills what has not ended ten seconds after it was told to.
  shutdown_timeout = "3s"
}

upstream "sapsocks" "onprem" {
  # Host, port and credentials of the bound Connectivity service. Where several
  # are bound, add instance = "its name". With the application feature
  # file-based-vcap-services: file(env("VCAP_SERVICES_FILE_PATH")).
  vcap_services = env("VCAP_SERVICES")
}

listener "tcp" "orders" {
  address = "127.0.0.1:5432"
  target  = "orders-db.corp:5432" # the virtual host and port in the Cloud Connector
}

route "onprem" {
  upstreams = [upstream.sapsocks.onprem]
}
