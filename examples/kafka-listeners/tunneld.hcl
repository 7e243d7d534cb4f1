# Kafka behind the Cloud Connector, for a client that knows of no proxy: one
# listener per broker, each on a loopback address of its own and on the port that
# the broker advertises. The client resolves the brokers' names to these
# addresses: hosts beside this file is what /etc/hosts needs, or hostAliases of a
# pod. (Linux has all of 127.0.0.0/8; on macOS: ifconfig lo0 alias 127.0.0.11.)
upstream "sapsocks" "onprem" {
  vcap_services = env("VCAP_SERVICES")
}

listener "tcp" "kafka-1" {
  address = "127.0.0.11:9092"
  target  = "kafka-1.corp:9092"
}

listener "tcp" "kafka-2" {
  address = "127.0.0.12:9092"
  target  = "kafka-2.corp:9092"
}

listener "tcp" "kafka-3" {
  address = "127.0.0.13:9092"
  target  = "kafka-3.corp:9092"
}

route "brokers" {
  upstreams = [upstream.sapsocks.onprem]
}
