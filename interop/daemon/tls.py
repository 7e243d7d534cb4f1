"""A TLS client of Python: tls.py raises|default|shuts HOST:PORT CA CERT KEY

It asks, and prints what it reads up to the end, and how that ended. raises: an end of file
without a close_notify is an error. default: it is an end, as Python has it by default. shuts: it
ends its own direction by FIN alone before it reads, after which Python no longer decrypts."""

import socket
import ssl
import sys

mode, address, ca, cert, key = sys.argv[1:]
host, port = address.split(":")
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(cert, key)
plain = socket.create_connection((host, int(port)), timeout=60)
s = context.wrap_socket(plain, server_hostname="door.example", suppress_ragged_eofs=mode != "raises")
s.sendall(b"question\n")
try:
    if mode == "shuts":
        s.shutdown(socket.SHUT_WR)
        while s.recv(4096):
            pass
        print("an end")
    else:
        while piece := s.recv(4096):
            print(piece.decode(), end="")
        print("an end")
        s.unwrap()
        print("closed")
except OSError as e:
    print(type(e).__name__, e.args[-1])
