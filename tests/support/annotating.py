"""The annotation tool as a process of its own, and what its page sends."""

import http.client
import json
import signal
import subprocess
import sys
from urllib.parse import urlsplit

from support.processes import heed_interrupts


def body(queue, number=0, who="A", **more):
    """A save of what the release says, with a status and a density."""
    item = queue.items[number]
    values = {**queue.start(item), "object_status": "good", "dense": False}
    named = {"number": number, "image_id": item.key.image_id, "object_index": item.key.object_index}
    return {**named, "who": who, "values": {**values, **more.pop("values", {})}, **more}


class Served:
    """The command in a process of its own."""

    def __init__(self, raw, path):
        command = [sys.executable, "-m", "processing", "annotate", str(raw), "--corrections", str(path)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=heed_interrupts,
        )
        self.address = self.process.stdout.readline().strip()
        parts = urlsplit(self.address)
        self.host, self.token = parts.netloc, parts.query.removeprefix("token=")

    def save(self, content):
        """The answer's status; raises where the server is gone."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        headers = {"Authorization": f"Bearer {self.token}", "Origin": f"http://{self.host}"}
        connection.request("POST", "/api/save", json.dumps(content), headers)
        return connection.getresponse().status

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(20)
        self.process.stdout.close()
