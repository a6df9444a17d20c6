"""Readers before the cores of a database server, as a simulation: what docs/scale.md assumes of waiting and of misses.

Readers come at random (a Poisson stream) and want a hit's time of a core, or a miss's; who finds no core free waits in one
queue. At moments a plan is edited that a share of the users have: each of them misses until the worker has computed its
document. The worker computes them in an order of its own, at a steady rate, and has cores for itself. Times are in
seconds, lengths of service are exponential around their mean, and everything follows from the seed.
"""

import dataclasses
import heapq
import math
import random


@dataclasses.dataclass
class Shard:
    cores: int  # that readers have
    reads: float  # a second
    hit: float  # seconds of a core
    miss: float
    users: int
    share: float = 0.0  # of the users, who have the plan
    documents: float = 0.0  # that the worker computes in a second
    edits: tuple = ()  # when
    refreshes: tuple = None  # when refresh begins to follow what has been edited until then; None: at once
    steady: bool = False  # every service takes exactly its mean
    seed: int = 1


@dataclasses.dataclass
class Run:
    waits: list  # when a reader came, and how long he was at it
    missed: list  # when a reader came who missed
    waited: int = 0  # readers who found no core free
    arrivals: int = 0

    def mean(self):
        return sum(took for _, took in self.waits) / len(self.waits)

    def percentile(self, p, since=0.0, until=math.inf):
        took = sorted(took for at, took in self.waits if since <= at < until)
        return took[min(len(took) - 1, int(p * len(took)))] if took else None

    def misses(self, since=0.0, until=math.inf):
        return sum(since <= at < until for at in self.missed)


class Worker:
    """Which documents are fresh. A pass goes through those who have the plan in an order that has nothing to do with who is read."""

    def __init__(self, shard):
        self.concerned, self.rate = int(shard.share * shard.users), shard.documents
        self.passes = []  # (edited from when on, the pass begins, ends), of one edit or of those that a pass follows together
        begins = shard.edits if shard.refreshes is None else shard.refreshes
        free, waiting = 0.0, sorted(shard.edits)
        for begin in sorted(begins):
            edited = [at for at in waiting if at <= max(begin, free)]
            if edited:
                waiting = waiting[len(edited) :]
                start = max(begin, free)
                free = start + (self.concerned / self.rate if self.rate else 0)
                self.passes.append((edited, start, free))
        # What nobody has come to until the end.
        self.passes += [([at], math.inf, math.inf) for at in waiting]

    def stale(self, user, at):
        """Whether an edit concerns this user whose pass has not come to him."""
        if user >= self.concerned:
            return False
        for edited, start, _ in self.passes:
            done = start + user / self.rate if self.rate and start < math.inf else math.inf
            if edited[0] <= at < done:
                return True
        return False


def run(shard, seconds):
    """What happens in so many seconds."""
    rng, worker = random.Random(shard.seed), Worker(shard)
    result = Run([], [])
    free = [0.0] * shard.cores  # when each core is free again
    at = 0.0
    while True:
        at += rng.expovariate(shard.reads)
        if at >= seconds:
            return result
        result.arrivals += 1
        missed = worker.stale(rng.randrange(shard.users), at)
        mean = shard.miss if missed else shard.hit
        begin = max(at, free[0])
        result.waited += begin > at
        end = begin + (mean if shard.steady else rng.expovariate(1 / mean))
        heapq.heapreplace(free, end)
        result.waits.append((at, end - at))
        if missed:
            result.missed.append(at)


def erlang_c(cores, load):
    """The probability that a reader waits, where `load` cores are busy on average, and services are exponential."""
    blocked = 1.0
    for n in range(1, cores + 1):
        blocked = load * blocked / (n + load * blocked)
    busy = load / cores
    return blocked / (1 - busy + busy * blocked)
