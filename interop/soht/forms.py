"""Reads forms, each in base64 on a line, with Python's parser, and prints as
JSON what the data fields hold together (in hex) and each open's fields."""

import base64
import json
import re
import sys
from urllib.parse import parse_qs

opens, data = [], bytearray()
for line in sys.stdin:
    body = base64.b64decode(line).decode("ascii")
    form = {k: v[0] for k, v in parse_qs(body, keep_blank_values=True, strict_parsing=True).items()}
    if form["action"] == "open":
        opens.append(form)
    if "data" not in form:
        continue
    plain = re.sub(
        r"#([0-9a-fA-F]{2})|#",
        lambda m: chr(int(m[1], 16)) if m[1] else sys.exit("a # without two digits"),
        form["data"],
    ).encode("latin-1")
    if len(plain) != int(form["datalength"]):
        sys.exit(f"datalength {form['datalength']} of {len(plain)} bytes")
    data += plain
print(json.dumps({"parse_qs": {"opens": opens, "data": data.hex()}}))
