"""Sends a POST for each line of standard input, by a library and over one pool of connections."""

import json
import sys

library, url = sys.argv[1:]
if library == "requests":
    import requests

    session = requests.Session()
    post = lambda body, headers: session.post(url, data=body, headers=headers)
else:
    import httpx

    session = httpx.Client(timeout=60)
    post = lambda body, headers: session.post(url, content=body, headers=headers)

for line in sys.stdin:
    wanted = json.loads(line)
    try:
        response = post(b"x" * wanted["size"], wanted["headers"])
        result = {
            "status": response.status_code,
            "nonce": response.headers.get("dpop-nonce"),
            "body": response.text,
        }
    except Exception as error:
        result = {"status": repr(error)}
    print(json.dumps(result), flush=True)
