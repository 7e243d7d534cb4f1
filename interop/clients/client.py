"""Asks for a page through a proxy: client.py HOST:PORT USER PASSWORD TARGET.

It prints the answer's status, or what the standard library says."""

import base64
import http.client
import sys

proxy, user, password, target = sys.argv[1:]
host, port = target.split(":")
headers = {}
if user:
    headers["Proxy-Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
c = http.client.HTTPConnection(*proxy.split(":"), timeout=60)
c.set_tunnel(host, int(port), headers=headers)
try:
    c.request("GET", "/")
    print(c.getresponse().status)
except OSError as e:
    print(e)
