#!/usr/bin/env python3
"""A function for tests: each event says what to do; _HANDLER says how to start."""
import http.client, json, os, signal, subprocess, sys, time

start = os.environ["_HANDLER"]
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

def ask(method, path, body=None, headers={}):
    global connection
    if start == "reconnect":
        connection.close()
        connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, "/2018-06-01/runtime/" + path, body, headers)
    reply = connection.getresponse()
    return reply, reply.read()

if start == "exit":
    print("no licence", file=sys.stderr, flush=True)
    sys.exit(7)
if start == "init-error":
    ask("POST", "init/error", json.dumps({"errorMessage": "no model", "errorType": "InitError", "stackTrace": ["f", "g"]}))
    time.sleep(60)
if start == "hang":
    print("thinking", flush=True)
    time.sleep(60)
if start == "greet":
    print("starting up", flush=True)

def run(event, id, reply):
    do = event.get("do", "echo")
    if do == "echo":
        return event
    if do == "pid":
        return os.getpid()
    if do == "env":
        return dict(os.environ, cwd=os.getcwd())
    if do == "context":
        return {name.lower(): value for name, value in reply.headers.items()}
    if do == "print":
        print(event["text"], flush=True)
        print("on stderr", file=sys.stderr, flush=True)
        return None
    if do == "flood":
        block = b"x" * (1 << 20)
        for _ in range(event["mib"]):
            os.write(1, block)
            os.write(2, block)
        os.write(1, b"the end\n")
        return "flooded"
    if do == "raise":
        raise KeyError("no such thing")
    if do == "text-error":
        ask("POST", f"invocation/{id}/error", "plain words", {"Lambda-Runtime-Function-Error-Type": "Odd"})
        return run
    if do == "exit":
        print("dying words", file=sys.stderr, flush=True)
        os._exit(event["code"])
    if do == "answer-and-exit":
        ask("POST", f"invocation/{id}/response", "\"last\"")
        os._exit(3)
    if do == "post-and-exit":
        body = b"\"late\""
        head = f"POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sock.sendall(head.encode() + body)
        os._exit(0)
    if do == "signal":
        os.kill(os.getpid(), getattr(signal, event["name"]))
    if do == "sleep":
        time.sleep(event["s"])
        return "slept"
    if do == "orphan":
        child = subprocess.Popen(["sleep", "300"])
        with open(event["file"], "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(300)
    if do == "memory":
        held = bytearray(os.urandom(1 << 20) * event["mib"])
        time.sleep(60)
        return len(held)
    if do == "child-memory":
        subprocess.run([sys.executable, "-c", f"import time; x = bytearray(b'x' * ({event['mib']} << 20)); time.sleep(60)"])
    if do == "large":
        ask("POST", f"invocation/{id}/response", b"\"" + b"y" * event["bytes"] + b"\"")
        return run
    if do == "no-json":
        ask("POST", f"invocation/{id}/response", "{oops")
        return run
    if do == "empty":
        ask("POST", f"invocation/{id}/response", "")
        return run
    if do == "rubbish":
        other = "00000000-0000-0000-0000-000000000000"
        codes = [
            ask("POST", f"invocation/{other}/response", "1")[0].status,
            ask("POST", "invocation/no-uuid/response", "1")[0].status,
            ask("GET", "restore/next")[0].status,
            ask("GET", f"invocation/{id}/response")[0].status,
        ]
        ask("POST", f"invocation/{id}/response", json.dumps(codes))
        assert ask("POST", f"invocation/{id}/response", "\"twice\"")[0].status == 403
        assert ask("POST", f"invocation/{id}/error", "\"twice\"")[0].status == 403
        assert ask("POST", "init/error", "{}")[0].status == 403
        return run
    if do == "skip":
        return run
    if do == "abandon":
        # Answers, asks for work on another connection, and gives that one up.
        ask("POST", f"invocation/{id}/response", "\"answered\"")
        other = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
        other.request("GET", "/2018-06-01/runtime/invocation/next")
        time.sleep(0.2)
        other.close()
        return run
    if do == "break-off":
        head = f"POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        trailer = "Trailer: Lambda-Runtime-Function-Error-Type\r\n\r\n4\r\n\"abc\r\n0\r\nLambda-Runtime-Function-Error-Type: Midway\r\n\r\n"
        connection.sock.sendall((head + trailer).encode())
        reply = http.client.HTTPResponse(connection.sock)
        reply.begin()
        reply.read()
        return run
    if do == "print-late":
        ask("POST", f"invocation/{id}/response", "1")
        print("too late", flush=True)
        return run
    if do == "never-back":
        ask("POST", f"invocation/{id}/response", "\"bye\"")
        time.sleep(300)
    raise ValueError(do)

def batch(events, id, reply):
    answers = []
    for event in events:
        do = event.get("do") if isinstance(event, dict) else None
        if do == "fail":
            answers.append({"errorMessage": "not this one", "errorType": "Picky"})
        elif do == "short":
            return answers
        elif do in ("exit", "sleep", "raise", "large-one"):
            if do == "large-one":
                answers.append("z" * 500)
                continue
            run(event, id, reply)
        else:
            answers.append(event)
    print(f"batch of {len(events)}", flush=True)
    return answers

while True:
    reply, body = ask("GET", "invocation/next")
    id = reply.headers["Lambda-Runtime-Aws-Request-Id"]
    try:
        event = json.loads(body)
        result = batch(event, id, reply) if isinstance(event, list) else run(event, id, reply)
        if result is not run:
            ask("POST", f"invocation/{id}/response", json.dumps(result))
    except Exception as error:
        report = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": ["  line 1\n"]}
        ask("POST", f"invocation/{id}/error", json.dumps(report))
