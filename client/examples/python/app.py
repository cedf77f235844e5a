"""The same functions as in ../functions, in Python: the same arguments, the same answers, the same kinds of error.

Each is an ordinary Lambda handler. `bootstrap` beside this file starts the one that `_HANDLER` names.
"""

import json
import math
import sys

# n! has more digits than Python prints unless told to.
sys.set_int_max_str_digits(0)

PRIMES_N_MAX = 100_000_000
FACTORIAL_N_MAX = 1_100_000


class InvalidArgument(Exception):
    """An argument is missing, of another type, or out of bounds. Trying again does not help."""


class Asked(Exception):
    """The caller asked for this."""


def prime_numbers(event, context):
    return sieve(integer("prime_numbers", event, "n", PRIMES_N_MAX))


def sum_prime_numbers(event, context):
    return sum(sieve(integer("sum_prime_numbers", event, "n", PRIMES_N_MAX)))


def cmd_fact(event, context):
    n = integer("cmd_fact", event, "n", FACTORIAL_N_MAX)
    return "undefined" if n < 0 else str(math.factorial(n))


def typeA(event, context):
    arg1, arg2 = text("typeA", event, "arg1"), text("typeA", event, "arg2")
    return f"{arg1}_{arg2}{text('typeA', event, 'arg3', default='')}"


def typeB(event, context):
    return "Not filled !" if text("typeB", event, "arg1", default="") == "" else event["arg1"]


def greet(event, context):
    return f"{text('greet', event, 'arg1')} {text('greet', event, 'arg2')}"


def fail(event, context):
    """Raises an exception of the class and with the message that were asked for; both arrive, and the stack too."""
    kind, message = text("fail", event, "type", "ExampleFailure"), text("fail", event, "message", "failed as asked")
    raise type(str(kind), (Asked,), {})(message)


def sieve(n):
    """The primes up to n, by the sieve of Eratosthenes."""
    if n < 2:
        return []
    prime = bytearray([1]) * (n + 1)
    prime[:2] = b"\0\0"
    for candidate in range(2, math.isqrt(n) + 1):
        if prime[candidate]:
            multiples = range(candidate * candidate, n + 1, candidate)
            prime[multiples.start :: candidate] = bytes(len(multiples))
    return [candidate for candidate in range(n + 1) if prime[candidate]]


def integer(function, event, name, most):
    value = argument(function, event, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{function}: argument {name} must be an integer, but is {shown(value)}")
    if value > most:
        raise InvalidArgument(f"{function}: argument {name} must be at most {most}, but is {value}")
    return value


def text(function, event, name, default=None):
    value = argument(function, event, name, default)
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise InvalidArgument(f"{function}: argument {name} must be a string or a number, but is {shown(value)}")
    return value


def argument(function, event, name, default=None):
    """An argument of the payload; null counts as missing."""
    if not isinstance(event, dict):
        raise InvalidArgument(f"{function}: the payload is not an object of arguments")
    value = event.get(name)
    if value is None and default is None:
        raise InvalidArgument(f"{function}: argument {name} is missing")
    return default if value is None else value


def shown(value):
    """Enough of a value to recognise it in a message."""
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 60 else written[:60] + "…"
