"""A client with the pool of aiohttp: works off a plan and says what came of it."""

import asyncio
import sys

import aiohttp
from plan import PATIENCE, Plan, Request


async def in_pieces(request):
    for piece in request.pieces():
        yield piece


async def exchange(session, plan):
    request = Request(plan)
    body = in_pieces(request) if request.chunked else request.body
    try:
        async with session.request(request.method, request.url, headers=request.headers, data=body) as response:
            got = await response.read()
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        return plan.failed(request, error)
    return plan.answered(request, response.status, response.headers.get("x-served-by", ""), got)


async def work(session, plan):
    while not plan.stopped():
        await exchange(session, plan)
        await asyncio.sleep(plan.rest())


async def main():
    plan = Plan(sys.argv[1])
    connector = aiohttp.TCPConnector(limit=plan.workers, keepalive_timeout=600)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(work(session, plan) for _ in range(plan.workers)))
    plan.end()


asyncio.run(main())
