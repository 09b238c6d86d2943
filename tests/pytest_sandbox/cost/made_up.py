"""A run that never was: workers, services, failures and texts that would like to be markup."""

from __future__ import annotations

import random

from pytest_sandbox.cost.events import Kind, Life, Phase, Span
from pytest_sandbox.cost.run import Case, Failure, Run
from pytest_sandbox.hermetic.escapes.escape import Escape

BEGAN = 1_800_000_000.0
HOSTILE = "</script><script>hacked=1</script><img src=x onerror=hacked=1>\x1b[31mred\x1b[0m & \x00"


def made_up(count: int, workers: int = 4) -> Run:
    """`count` tests; each seventeenth fails, the first with a post mortem and escapes."""
    dice = random.Random(17)
    run = Run(BEGAN)
    names = [f"gw{number}" for number in range(workers)]
    clock = dict.fromkeys(names, BEGAN + 2.4)
    pull: tuple[Phase, Kind] = ("pull", "image")
    run.spans.append(("gw0", _span(*pull, "docker.io/library/redis:7", BEGAN + 0.3, 1.6)))
    for name in names:
        _database(run, name, BEGAN + 1.9)
        clock[name] += dice.random() / 2
    for number in range(count):
        worker = names[number % workers]
        case = _case(dice, number, worker, clock[worker])
        run.tests.append(case)
        if number % 5 == 0:
            _cache(dice, run, case)
        clock[worker] = case.start + case.seconds + 0.002
    run.ended = max(clock.values()) + 0.2
    return run


def _case(dice: random.Random, number: int, worker: str, start: float) -> Case:
    call = dice.expovariate(12)
    nodeid = f"tests/shop/test_orders_{number // 40}.py::test_order[{number % 40}-paid]"
    case = Case(
        nodeid, worker, nodeid, "passed", start, dice.random() / 40, call, dice.random() / 200
    )
    if number % 17 == 3:
        _fail(case, number)
    elif number % 23 == 5:
        case.outcome = "skipped"
    elif number % 41 == 7:
        case.outcome = "xfailed"
    return case


def _fail(case: Case, number: int) -> None:
    case.outcome = "failed" if number % 3 else "error"
    text = (
        f"    def test_order(pg):\n>       assert total(pg) == 7\nE       {HOSTILE}\n" + 8 * "x\n"
    )
    log = "2026-11-25 LOG:  database system is \x1b[32mready\x1b[0m\n" * 5 + HOSTILE
    sections = (("Captured stdout call", HOSTILE), ("container pg-12ab34 (running)", log))
    case.failures.append(Failure("call", text, sections))
    case.post_mortem = [f"sandboxctl shell '{case.nodeid}'"]
    case.escapes = [
        Escape("writes", "created", "/home/me/.netrc", "12 bytes"),
        Escape("connections", "tried", f"203.0.113.7:443{HOSTILE}"),
    ]


def _database(run: Run, worker: str, start: float) -> None:
    """What every worker's session needs: one snapshot for all, a server for each."""
    snapshot = _span("snapshot", "snapshot", "pg", start, 0.9)
    run.spans += [(worker, snapshot), (worker, _span("start", "container", "pg", start + 0.9, 0.1))]
    run.spans.append((worker, _span("ready", "container", "pg", start + 1.0, 0.3)))
    life = Life(
        f"pg{worker}", f"pg-{worker}", "pg", "", "session", "", "postgres:17", start + 0.9, 0.0,
        "running", f"LOG: ready\n{HOSTILE}\n",
    )  # fmt: skip
    run.lives.append((worker, life))


def _cache(dice: random.Random, run: Run, case: Case) -> None:
    case.uses, begin = ["pg", "cache"], case.start
    for phase, share in (("start", 0.3), ("ready", 0.6)):
        assert phase in ("start", "ready")
        named: Phase = "start" if phase == "start" else "ready"
        span = _span(named, "container", "cache", begin, share * case.setup, case.nodeid)
        run.spans.append((case.worker, span))
        begin = span.stop
    life = Life(
        case.nodeid, f"cache-{dice.randrange(16**6):06x}", "cache", "", "function", case.nodeid,
        "redis:7", case.start, case.start + case.seconds, "exit code 137, SIGKILL", HOSTILE * 2,
    )  # fmt: skip
    run.lives.append((case.worker, life))


def _span(
    phase: Phase, kind: Kind, name: str, start: float, seconds: float, test: str = ""
) -> Span:
    return Span(phase, kind, name, name, "session", start, start + seconds, seconds, test)
