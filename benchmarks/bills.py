"""What a batch's input costs with and without prompt caching, played through without any I/O.

A `Shape` says what a batch is like; `bill` plays its calls in the order of their times against a
prompt cache that bills like the API's (written at breakpoints only, gone after its time to live)
and lets `runner.messages.thrift` decide what is marked. What is decided where jobs share a beginning
follows `runner.workers.beginnings`. Thousands of shapes take seconds.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from random import Random

from runner.jobs.call import Usage
from runner.messages.caching import Multiples, Ttl
from runner.messages.thrift import Outlook, Thrift

LAG_S = 1.0  # from a request to the beginning of its answer
ASK_TOKENS = 130  # what a `turn` adds behind the document
MODELS = {  # least tokens that are cached, multiples, whether the last message is the document
    "claude-haiku-4-5": (4_096, Multiples(), True),
    "claude-sonnet-4-6": (1_024, Multiples(), False),
    "claude-sonnet-5-5": (512, Multiples(read=0.05), False),
    "claude-haiku-5-5": (512, Multiples(), False),
}


@dataclass(frozen=True)
class Shape:
    """What a batch is like.

    Args:
        calls: of each document; the length of it is the number of jobs.
        shared_tokens: of the beginning that all jobs share.
        own_tokens: of each job's prompt behind it.
        answer_tokens: what a call writes at most.
        call_s: how long a call takes.
        uneven: how much longer or shorter single calls take, as a part of that.
        pause_s: between two calls of a document.
        eager: a bet may be placed that nothing covers (`caching: eager`).
        known: each job's `until` asks for as many words as its document has.
        misjudged: by how much prompts are misjudged before the API has counted one.
    """

    model: str
    calls: tuple[int, ...]
    shared_tokens: int
    own_tokens: int
    answer_tokens: int
    concurrency: int
    call_s: float
    pause_s: float = 0.0
    known: bool = False
    eager: bool = False
    misjudged: float = 1.0
    uneven: float = 0.0


@dataclass
class Bill:
    """What a batch's input was billed for, in tokens."""

    plain: float = 0.0
    written: dict[Ttl, float] = field(default_factory=lambda: dict.fromkeys(Ttl, 0.0))
    read: float = 0.0

    def worth(self, multiples: Multiples) -> float:
        """In input tokens' worth."""
        writes = sum(tokens * multiples.write(ttl) for ttl, tokens in self.written.items())
        return self.plain + writes + multiples.read * self.read

    @property
    def tokens(self) -> float:
        return self.plain + sum(self.written.values()) + self.read


@dataclass
class _Job:
    number: int
    calls: int
    made: int = 0
    warm_tokens: float = 0.0
    warm_until_s: float = -1.0
    warm_block: int = 0
    spent: float = 0.0
    began_s: float = 0.0
    ttl: Ttl = Ttl.MINUTES


class _Batch:
    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        minimum, self.multiples, self.prefill = MODELS[shape.model]
        self.minimum = minimum
        self.thrift = Thrift(self.multiples, minimum)
        self.bill = Bill()
        self.entries: dict[tuple[int, int], tuple[float, Ttl]] = {}
        self.to_come = deque(_Job(i, calls) for i, calls in enumerate(shape.calls))
        self.unfinished = len(shape.calls)
        self.events: list[tuple[float, int, int, _Job]] = []
        self.count = 0
        self.counted = False
        self.jobs_left = len(shape.calls)
        self.warm_until_s = -1.0
        self.shared_ttl = Ttl.MINUTES
        self.leader: int | None = None
        self.waiting: list[_Job] = []

    def run(self) -> Bill:
        for _ in range(min(self.shape.concurrency, len(self.to_come))):
            self._at(0.0, 0, self.to_come.popleft())
        while self.events:
            now, kind, _, job = heapq.heappop(self.events)
            if kind == 0:
                self._begin(now, job)
            else:
                self._end(now, job)
        return self.bill

    def _at(self, when: float, kind: int, job: _Job) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, kind, self.count, job))

    def _call_s(self, job: _Job) -> float:
        luck = Random(job.number * 1_000 + job.made).uniform(-1, 1)
        return self.shape.call_s * (1 + luck * self.shape.uneven)

    def _tokens(self, block: int, *, guess: bool = False) -> float:
        """Input up to a place: -1 the shared beginning, 0 the prompt, n the n-th call's text."""
        shape = self.shape
        prompt = shape.shared_tokens if block < 0 else shape.shared_tokens + shape.own_tokens
        scale = shape.misjudged if guess and not self.counted else 1.0
        return prompt * scale + max(0, block) * shape.answer_tokens

    def _begin(self, now: float, job: _Job) -> None:
        shape, thrift = self.shape, self.thrift
        marks: dict[int, Ttl] = {}
        stake = 0.0
        shared_warm = False
        leads = False
        if shape.shared_tokens and len(shape.calls) > 1:
            if self.leader is not None:
                self.waiting.append(job)
                return
            shared_warm = self.warm_until_s - 30 > now
            if not shared_warm:
                # All that begin at this very moment stand beside it.
                company = sum(e[0] <= now + 0.03 and e[1] == 0 for e in self.events)
                company += len(self.waiting)
                bet = thrift.share(
                    tokens=self._tokens(-1, guess=True),
                    jobs=min(self.jobs_left - (job.made == 0), self.unfinished - 1),
                    others=self.unfinished - 1,
                    company=company,
                    slots=shape.concurrency,
                    call_s=thrift.call_s(shape.answer_tokens),
                )
                if bet is not None:
                    marks[-1] = bet.ttl
                    stake += bet.stake
                    leads = True
            else:
                marks[-1] = self.shared_ttl
        own_warm = job.warm_tokens if job.warm_until_s > now else 0.0
        warm = max(own_warm, self._tokens(-1) if shared_warm else 0.0)
        places = [0] if job.made == 0 else [job.made, job.made - 1]
        gap_s = None
        if job.made:
            gap_s = now - job.began_s
            thrift.went_on(gap_s)
        job.began_s = now
        whole = self._tokens(job.made) + (ASK_TOKENS if job.made and not self.prefill else 0)
        look = Outlook(
            number=job.made + 1,
            at_least=job.calls - job.made - 1 if shape.known else 0,
            most=49 - job.made,
            spent_tokens=job.spent + whole,
            eager=shape.eager,
        )
        bet = thrift.go_on(look, gap_s, [self._tokens(p, guess=True) for p in places], warm)
        if bet is not None:
            marks[places[bet.at]] = bet.ttl
            stake += bet.stake
            if bet.ttl is Ttl.HOUR and -1 in marks:
                marks[-1] = Ttl.HOUR
        elif own_warm:
            marks[job.warm_block] = job.ttl
        if bet is not None and shape.shared_tokens and self.jobs_left > 1:
            marks.setdefault(-1, bet.ttl)
        if job.made == 0:
            self.jobs_left -= 1
        thrift.purse.staked += stake
        usage = self._billed(now, job, marks, whole)
        thrift.purse.staked -= stake
        thrift.purse.billed(usage, self.multiples)
        self.counted = True
        job.spent += whole
        cached = usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        own = max((m for m in marks if m >= 0), default=None)
        if own is not None and cached:
            job.warm_tokens, job.warm_block, job.ttl = cached, own, marks[own]
            job.warm_until_s = now + LAG_S + marks[own].seconds
        if -1 in marks and cached:
            self.shared_ttl = marks[-1]
            self.warm_until_s = max(self.warm_until_s, now + LAG_S + marks[-1].seconds)
        if leads:
            self.leader = job.number
            self._at(now + LAG_S, 1, job)
        else:
            self._at(now + self._call_s(job), 1, job)

    def _billed(self, now: float, job: _Job, marks: dict[int, Ttl], whole: float) -> Usage:
        def key(block: int) -> tuple[int, int]:
            return (-1, 0) if block < 0 else (job.number, block)

        places = [*([-1] if self.shape.shared_tokens else []), *range(job.made + 1)]
        hit = None
        for mark in sorted(marks, reverse=True):
            behind = [p for p in places if p <= mark][-20:]
            live = [p for p in behind if self.entries.get(key(p), (-1.0, Ttl.MINUTES))[0] > now]
            if live:
                hit = live[-1]
                ttl = self.entries[key(hit)][1]
                self.entries[key(hit)] = (now + ttl.seconds, ttl)
                break
        read = 0.0 if hit is None else self._tokens(hit)
        reached = read
        minutes = hour = 0.0
        for mark in sorted(marks):
            tokens, ttl = self._tokens(mark), marks[mark]
            if tokens < self.minimum:
                continue
            self.entries[key(mark)] = (now + LAG_S + ttl.seconds, ttl)
            if tokens > reached:
                if ttl is Ttl.HOUR:
                    hour += tokens - reached
                else:
                    minutes += tokens - reached
                reached = tokens
        self.bill.plain += whole - reached
        self.bill.read += read
        self.bill.written[Ttl.MINUTES] += minutes
        self.bill.written[Ttl.HOUR] += hour
        return Usage(
            input_tokens=round(whole - reached),
            cache_creation_input_tokens=round(minutes + hour),
            cache_read_input_tokens=round(read),
            cache_creation_1h_input_tokens=round(hour),
        )

    def _end(self, now: float, job: _Job) -> None:
        shape = self.shape
        if self.leader == job.number:
            self.leader = None
            for waiting in self.waiting:
                self._at(now, 0, waiting)
            self.waiting = []
            self._at(now - LAG_S + self._call_s(job), 1, job)
            return
        job.made += 1
        cut = job.made < job.calls
        self.thrift.ended(job.made, cut=cut, stream_s=shape.call_s)
        if cut:
            self._at(now + shape.pause_s, 0, job)
            return
        self.unfinished -= 1
        if self.to_come:
            self._at(now, 0, self.to_come.popleft())


def bill(shape: Shape) -> tuple[float, float]:
    """What a batch's input costs without prompt caching and with it, in input tokens' worth."""
    batch = _Batch(shape)
    found = batch.run()
    return found.tokens, found.worth(batch.multiples)


def shape(random: Random, *, known: bool | None = None) -> Shape:
    """A batch such as people make, or not, at random."""
    jobs = random.choice((1, 1, 2, 3, 5, 8, 13, 30, 60, 200))
    most = random.choice((1, 2, 3, 4, 6, 10, 15))
    even = random.random() < 0.5
    calls = [most if even else random.randint(1, most) for _ in range(jobs)]
    answer = random.choice((300, 1_000, 4_096, 8_192, 32_000))
    return Shape(
        model=random.choice(list(MODELS)),
        calls=tuple(calls),
        shared_tokens=random.choice((0, 0, 300, 1_500, 6_000, 20_000)),
        own_tokens=random.choice((20, 200, 1_000, 5_000, 20_000)),
        answer_tokens=answer,
        concurrency=random.choice((1, 2, 5, 20, 50)),
        call_s=answer / random.uniform(25, 150) + LAG_S,
        pause_s=random.choice((0.0, 0.0, 0.0, 2.0, 60.0, 400.0)),
        known=random.random() < 0.3 if known is None else known,
        misjudged=random.uniform(0.7, 1.5),
        uneven=random.choice((0.0, 0.1, 0.3)),
    )
