"""A client that prints what the standard library says.

sockets.py tcp LISTENER, or sockets.py tls LISTENER VERSION ALPN CA [CERTIFICATE KEY]."""

import socket
import ssl
import sys

kind, listener, *rest = sys.argv[1:]
host, port = listener.split(":")
try:
    with socket.create_connection((host, int(port)), timeout=15) as s:
        if kind == "tls":
            version, alpn, ca, *own = rest
            context = ssl.create_default_context(cafile=ca)
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
            if alpn:
                context.set_alpn_protocols([alpn])
            if own:
                context.load_cert_chain(*own)
            s = context.wrap_socket(s, server_hostname=host)
        s.sendall(b"\n")
        print(s.recv(100))
except OSError as e:
    print(e)
