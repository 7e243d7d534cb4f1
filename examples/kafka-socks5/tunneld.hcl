# Kafka behind the Cloud Connector, for a client that can use a SOCKS5 proxy: it
# asks the proxy for each broker by the name that the brokers advertise. The
# Cloud Connector has one mapping per broker, under that very name and port.
# socket-factory.js beside this file is how kafkajs is taught it.
upstream "sapsocks" "onprem" {
  vcap_services = env("VCAP_SERVICES")
}

listener "socks5" "kafka" {
  address = "127.0.0.1:1080"
}

route "brokers" {
  match {
    hosts = ["kafka-*.corp"]
    ports = [9092]
  }
  upstreams = [upstream.sapsocks.onprem]
}
