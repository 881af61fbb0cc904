"""A client with the pool of requests (urllib3), shared by threads: works off a plan and says what came of it."""

import sys
import threading
import time

import requests
from plan import PATIENCE, Plan, Request


def exchange(session, plan):
    request = Request(plan)
    body = request.pieces() if request.chunked else request.body
    try:
        response = session.request(
            request.method, request.url, headers=request.headers, data=body, timeout=PATIENCE, allow_redirects=False
        )
        got = response.content
    except requests.RequestException as error:
        return plan.failed(request, error)
    return plan.answered(request, response.status_code, response.headers.get("x-served-by", ""), got)


def work(session, plan):
    while not plan.stopped():
        exchange(session, plan)
        time.sleep(plan.rest())


def main():
    plan = Plan(sys.argv[1])
    session = requests.Session()
    # No proxy and no password file of the machine.
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=plan.workers))
    workers = [threading.Thread(target=work, args=(session, plan)) for _ in range(plan.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    plan.end()


main()
