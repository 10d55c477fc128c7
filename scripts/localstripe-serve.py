"""localstripe (PyPI), a stand-in for Stripe that others wrote, on a free port of this machine alone.

Prints the port, then serves until its standard input ends: when whoever started it is gone, so is it. Its own command listens
on every address and writes all it holds to a file after each request; neither is wanted here.
"""

import asyncio
import os
import socket
import sys
import threading

from aiohttp import web
from localstripe import resources, server


def until_input_ends():
    sys.stdin.buffer.read()
    os._exit(0)


resources.Store.dump_to_disk = lambda self: None
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
threading.Thread(target=until_input_ends, daemon=True).start()
asyncio.set_event_loop(asyncio.new_event_loop())
web.run_app(server.app, sock=sock, print=None, access_log=None, handle_signals=False)
