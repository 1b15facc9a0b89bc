"""A gRPC server that is not tonic: all four kinds of call, and all the ways in which grpcio refuses one.

Speaks JSON, a line at a time. The first line says where it listens. A line on standard input is the number of the first
token, of t1, t2 and so on, that is accepted from now on; it is answered with the tokens of the calls since the last one.
Ends when standard input does, so that a test that dies leaves nothing behind.

Messages are bytes, so that no code is generated. `refuse` in a call's metadata says how it is refused if its token is not
accepted.
"""

import json
import sys
from concurrent import futures

import grpc

first_accepted = 1
calls = []


def say(message):
    print(json.dumps(message), flush=True)


def is_accepted(metadata):
    return int(metadata["authorization"].removeprefix("Bearer t")) >= first_accepted


# ===== refusing =====


def refuse(context):
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


class Interceptor(grpc.ServerInterceptor):
    """Writes the calls down, and refuses those that want to be refused before their handler is asked."""

    def intercept_service(self, continuation, details):
        metadata = dict(details.invocation_metadata)
        calls.append(metadata["authorization"].removeprefix("Bearer "))
        handler = continuation(details)
        if metadata.get("refuse") != "interceptor" or is_accepted(metadata):
            return handler
        refusing = lambda _request, context: refuse(context)
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(refusing)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(refusing)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(refusing)
        return grpc.unary_unary_rpc_method_handler(refusing)


def messages(context, answer):
    """Yields the answer, or refuses in the way that is asked for."""
    metadata = dict(context.invocation_metadata())
    if is_accepted(metadata):
        yield from answer
        return
    match metadata["refuse"]:
        case "abort":
            refuse(context)
        case "abort after metadata":
            context.send_initial_metadata((("x-initial", "initial"),))
            refuse(context)
        case "set_code":
            context.set_code(grpc.StatusCode.UNAUTHENTICATED)
            context.set_details("who are you?")
            yield b""
        case "abort after a message":
            yield b"first"
            refuse(context)
        case "abort after two messages":
            yield b"first"
            yield b"second"
            refuse(context)


def only(messages):
    """Returns the only message of an answer."""
    (message,) = messages
    return message


# ===== answering =====


def unary(request, context):
    return only(messages(context, [request]))


def join(requests, context):
    return only(messages(context, (b"".join(requests) for _ in [1])))


def repeat(request, context):
    yield from messages(context, [request] * 3)


def echo(requests, context):
    yield from messages(context, requests)


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
}
server = grpc.server(futures.ThreadPoolExecutor(16), interceptors=[Interceptor()])
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("raw.Api", handlers)])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
say({"port": port})

for line in sys.stdin:
    first_accepted = int(line)
    seen, calls = calls, []
    say({"calls": seen})
server.stop(None)
