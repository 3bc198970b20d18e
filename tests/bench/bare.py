"""The peer of the receiver: aiohttp that reads a body and answers 202, in a process of its own."""

from __future__ import annotations

import sys

from aiohttp import web


async def accept(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response({"accepted": 1}, status=202)


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/hooks/{source}", accept)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
