"""The continuation loop as a pure state machine: no clock, no network, no database.

It is told what was asked, what a model can take and what came of each call; it answers what to do
next. The caller makes the calls, feeds their text through it, and saves what it gives back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runner.continuation import circles, endings, prefill, turn
from runner.continuation.circles import Circle
from runner.continuation.document import GrowingDocument
from runner.continuation.endings import Rule
from runner.continuation.room import Room
from runner.continuation.steps import CannotContinue, Finished, PastCall, Plan, Send, Splice, Step
from runner.continuation.text import Intake, is_blank
from runner.continuation.until import Watch
from runner.jobs.call import CallOutcome, Strategy, Usage, Verdict
from runner.jobs.spec import JobSpec, OnUnverifiedSeam
from runner.jobs.states import Finish
from runner.jobs.traits import ModelTraits

_MODULES = {Strategy.PREFILL: prefill, Strategy.TURN: turn}
IDLE_LIMIT = 2  # answers in a row that bring the document no further: it is stalled
# Seams in a row that stayed unverified: this model does not repeat last words, and asking for each
# seam three times would only cost three times as much.
UNVERIFIED_LIMIT = 2


def choose(spec: JobSpec, traits: ModelTraits) -> Strategy:
    """The strategy for a job: its own word, else what its model and its request allow."""
    if spec.continuation.strategy is not None:
        return spec.continuation.strategy
    thinks = spec.thinking is not None and spec.thinking.get("type") != "disabled"
    return Strategy.PREFILL if traits.prefill and not thinks else Strategy.TURN


def is_structured(spec: JobSpec) -> bool:
    """Whether the answer is to have a given form, such as JSON: its pieces cannot be glued, since
    each answer is a whole of its own (Messages API documentation, "Structured outputs")."""
    return bool((spec.output_config or {}).get("format") or spec.params.get("output_format"))


class ContinuationLoop:
    """Decides, call by call, how one job's document goes on.

    Ask `next_step`; for a `Send`, call `begin`, `feed` each piece of the stream, `end` with the
    outcome, and save what these give back; ask again.

    Args:
        spec: the job.
        traits: what its model takes, behind its endpoint.
        past: the job's earlier calls in order, the interrupted ones too.
    """

    def __init__(self, spec: JobSpec, traits: ModelTraits, past: Iterable[PastCall] = ()) -> None:
        self.spec = spec
        self.traits = traits
        self.document = GrowingDocument()
        self.calls = 0  # made, broken ones too
        self._strategy = choose(spec, traits)
        self._structured = is_structured(spec)
        self._watch = Watch(spec.until)
        self._room = Room(spec)
        self._splice: Splice = Intake()
        # What came of the calls so far.
        self._last: CallOutcome | None = None  # of the last call; None: none yet, or it broke
        self._ended_turn: CallOutcome | None = None  # the model ended here, and nothing came since
        self._resumed_at = 0  # the open or last call's resume point
        self._gap = ""  # what stood behind that point before
        self._circle: Circle | None = None
        self._looked_at = 0  # length of the document when it was last looked at for circles
        # Counts.
        self._answered = 0  # ended with a stop reason
        self._output_tokens = 0  # paid for so far
        self._idle = 0  # answers in a row without progress
        self._blank = 0  # answers cut off without a character of text: thinking took it all
        self._rejections = 0  # replies in a row that did not go on with the document
        self._unverified = 0  # seams in a row of which nobody can tell
        self._nudges = 0  # times the model was asked to go on with what it had ended
        for call in past:
            self._attach(call.resume_at)
            self._watch.feed(call.text)
            self.document.add(call.text)
            self._ended(call.outcome, rejected=call.rejected, verdict=call.verdict)
            if not call.counted:
                self._count_anew()

    def next_step(self) -> Step:
        """What to do next."""
        if end := self._ending() or self._bound_reached():
            return end
        plan = self._plan()
        if not isinstance(plan, Plan):
            return plan
        near = self._room.is_near(plan.resume_at, self.traits.context_window)
        return Send(self.calls + 1, plan, self._max_tokens(), near)

    def input_tokens(self, send: Send) -> int:
        """Tokens that the whole input of the request for `send` comes to, by estimate."""
        return self._room.tokens(send.plan.resume_at)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, as the API counted them or by estimate."""
        return self._room.prompt_tokens

    @property
    def counted_input(self) -> tuple[int, int] | None:
        """The last request that the API counted: its tokens, and the characters of the document
        that it held; None: none yet."""
        return self._room.counted

    def counted(self, send: Send, input_tokens: int) -> Finished | None:
        """The API counted the request for `send`; the end, where it leaves no room to go on."""
        self._room.note(send.plan.resume_at, Usage(input_tokens=input_tokens))
        return self._window_full(send.plan.resume_at)

    def request(self, send: Send) -> dict[str, Any]:
        """The body of the request for `send`, in the API's form."""
        spec = self.spec
        optional = {
            "system": list(spec.system) if isinstance(spec.system, tuple) else spec.system,
            "stop_sequences": list(spec.stop_sequences) or None,
            "thinking": spec.thinking,
            "output_config": spec.output_config,
        }
        return {
            **spec.params,
            "model": spec.model,
            "max_tokens": send.max_tokens,
            "messages": list(send.plan.messages),
            **{key: value for key, value in optional.items() if value is not None},
        }

    def begin(self, send: Send) -> None:
        """The call is about to be made: its text attaches at the plan's resume point."""
        self._attach(send.plan.resume_at)
        self._splice = send.plan.splice

    def feed(self, piece: str) -> str:
        """Take a piece of the stream; gives back the text to save, which may be empty."""
        return self._add(self._splice.feed(piece))

    @property
    def verdict(self) -> Verdict | None:
        """What is known of the open or last call's seam."""
        return self._splice.verdict

    @property
    def rejected(self) -> str | None:
        """The open or last call's text, where its reply is rejected."""
        return self._splice.rejected

    @property
    def closed(self) -> str | None:
        """Why the open call's stream is to be closed: nothing that follows would be kept. None: it
        is not."""
        if self.rejected is not None:
            return "the reply did not go on with the document"
        if self._watch.stop_at is not None:
            return "the condition of `until` is met"
        return None if self._circle is None else str(self._circle)

    def end(self, outcome: CallOutcome) -> str:
        """The open call ended; gives back the rest of the text to save.

        An outcome without a stop reason is that of a broken call.
        """
        text = self._add(self._splice.end(cut=endings.rule(outcome.stop_reason) is Rule.CUT))
        self._ended(outcome, rejected=self.rejected is not None, verdict=self.verdict)
        return text

    def _add(self, text: str) -> str:
        """Add to the document what is to be kept of `text`."""
        if self.closed is not None:
            return ""
        self._watch.feed(text)
        if (stop_at := self._watch.stop_at) is not None:
            text = text[: max(0, stop_at - len(self.document))]
        self.document.add(text)
        if len(self.document) - self._looked_at >= circles.LOOK_EVERY:
            self._look_for_circles()
        return text

    def _look_for_circles(self) -> None:
        if len(self.document) != self._looked_at:
            self._looked_at = len(self.document)
            self._circle = circles.find(self.document)

    def _attach(self, resume_at: int) -> None:
        self.calls += 1
        self._gap = self._behind(resume_at)
        self._resumed_at = resume_at
        if resume_at < len(self.document):
            self.document.attach(resume_at)
            self._watch.look_again(self.document)
            self._looked_at = min(self._looked_at, resume_at)
        else:
            self.document.attach(resume_at)
        self._circle = None

    def _behind(self, resume_at: int) -> str:
        """What stands behind a resume point, or stood there before calls that brought nothing."""
        if resume_at == len(self.document) == self._resumed_at:
            return self._gap
        return self.document.tail(len(self.document) - resume_at)

    def _ended(
        self, outcome: CallOutcome | None, *, rejected: bool, verdict: Verdict | None
    ) -> None:
        """Count what came of a call."""
        came = len(self.document) > self._resumed_at
        reason = None if outcome is None else outcome.stop_reason
        if self._ended_turn is not None and (came or rejected or reason is not None):
            self._nudges += 1
        elif rejected:
            self._rejections += 1
        if came:
            self._ended_turn = None
            self._rejections = 0
        if verdict is not None:
            self._unverified = self._unverified + 1 if verdict is Verdict.UNVERIFIED else 0
        self._last = None
        if outcome is None:
            return
        self._output_tokens += outcome.usage.output_tokens
        self._room.note(self._resumed_at, outcome.usage)
        if reason is None:
            # A broken answer that has to be begun anew was paid for like a whole one.
            self._answered += self._structured and came
            return
        self._answered += 1
        rule = endings.rule(reason)
        if rejected and rule is not Rule.CUT_FOR_GOOD:
            return  # how a reply ends that does not belong to the document says nothing about it
        self._last = outcome
        if rule is Rule.ENDED:
            self._ended_turn = outcome
        cut = rule is Rule.CUT
        self._blank += cut and (self._structured or not came)
        gained = self._resume_point() > self._resumed_at or (self._structured and came)
        self._idle = 0 if gained else self._idle + 1

    def _count_anew(self) -> None:
        """Of the calls so far only the text counts: their owner asked for the document again."""
        self._last = self._ended_turn = self._circle = None
        self._looked_at = len(self.document)
        self._answered = self._output_tokens = self._idle = self._blank = 0
        self._rejections = self._unverified = self._nudges = 0

    def _ending(self) -> Finished | CannotContinue | None:
        """How the document ends after its last call; None: it goes on."""
        rule = Rule.CUT if self._last is None else endings.rule(self._last.stop_reason)
        if self._last is not None and rule is Rule.CUT_FOR_GOOD:
            return endings.cut_for_good(self._last)
        if self._last is not None and rule is Rule.FOREIGN:
            return endings.foreign(self._last)
        marked = self._watch.met_by_a_mark and not self._structured
        if marked or self._watch.stop_at is not None:
            return Finished(Finish.UNTIL_MET)
        if self._ended_turn is not None:
            return self._after_turn(endings.model_finish(self._ended_turn))
        self._look_for_circles()
        return None if self._circle is None else Finished(Finish.STALLED, str(self._circle))

    def _after_turn(self, finish: Finish) -> Finished | None:
        """How a document ends that the model ended; None: it is asked to go on."""
        if is_blank(self.document.text):
            return Finished(Finish.STALLED, "the model answered with an empty text")
        if self.spec.until is None:
            return Finished(finish)
        if self._watch.met:
            return Finished(Finish.UNTIL_MET)
        missing = f"it {self._watch.missing}"
        if finish is Finish.STOP_SEQUENCE:
            return Finished(Finish.EARLY_END, f"a stop sequence ended it, and {missing}")
        if self._nudges and self._idle >= IDLE_LIMIT:
            return Finished(
                Finish.EARLY_END, f"asked to go on, the model wrote no more, and {missing}"
            )
        if self._structured or self._nudges >= self.spec.continuation.max_nudges:
            asked = f", asked {self._nudges} times to go on" if self._nudges else ""
            return Finished(Finish.EARLY_END, f"the model stopped{asked}, and {missing}")
        return None

    def _bound_reached(self) -> Finished | None:
        bounds = self.spec.continuation
        if self._idle >= IDLE_LIMIT or (self._idle and self._blank and self._asked_for_most()):
            why = f"{self._idle} answers in a row brought the document no further"
            if self._blank:
                why += "; if the model thinks, raise max_tokens or let it think less"
            return Finished(Finish.STALLED, why)
        if self._answered >= bounds.max_calls:
            return Finished(Finish.MAX_CALLS, f"max_calls {bounds.max_calls} reached")
        if self._tokens_left() == 0:
            return Finished(
                Finish.MAX_OUTPUT_TOKENS, f"max_output_tokens {bounds.max_output_tokens} reached"
            )
        return self._window_full(self._resume_point())

    def _window_full(self, resume_at: int) -> Finished | None:
        window = self.traits.context_window
        if not self._room.is_full(resume_at, window):
            return None
        tokens = self._room.tokens(resume_at)
        return Finished(
            Finish.CONTEXT_WINDOW,
            f"prompt and document come to about {tokens:,} tokens, and the model's context window "
            f"holds {window:,}",
        )

    def _tokens_left(self) -> int | None:
        bound = self.spec.continuation.max_output_tokens
        return None if bound is None else max(0, bound - self._output_tokens)

    def _resume_point(self) -> int:
        if self._structured:
            return 0
        if self.calls and len(self.document) == self._resumed_at:
            return self._resumed_at  # nothing came since: it is one already
        if self._ended_turn is not None:
            return self.document.clean_end(())  # its author ended it: no word of it is half written
        at: int = _MODULES[self._strategy].resume_point(self.document, self.spec)
        return at

    def _plan(self) -> Plan | Finished | CannotContinue:
        """How to go on; a document without a single fit character is begun (again)."""
        resume_at = self._resume_point()
        if self._structured and self._blank and self._asked_for_most():
            return CannotContinue(
                f"the answer has a given form and was cut at {self._most():,} tokens, the most this "
                "model gives in a call; such an answer cannot be continued: ask for less in one"
            )
        if resume_at == 0:
            return Plan(None, 0, self.spec.messages, Intake())
        gap = self._behind(resume_at)
        flagged = self.spec.continuation.on_unverified_seam is OnUnverifiedSeam.FLAG
        if self._ended_turn is not None:
            return turn.nudge(
                self.spec, self.traits, self.document, resume_at, gap, missing=self._watch.missing
            )
        if self._strategy is Strategy.PREFILL:
            return prefill.plan(self.spec, self.traits, self.document, resume_at)
        retries = self.spec.continuation.seam_retries
        if self._rejections > retries:
            why = f"in {self._rejections} tries the model did not go on with the document"
            return Finished(Finish.STALLED, why) if flagged else CannotContinue(why)
        last_try = self._rejections == retries or self._unverified >= UNVERIFIED_LIMIT
        return turn.plan(
            self.spec,
            self.traits,
            self.document,
            resume_at,
            gap,
            accept_unverified=flagged and last_try,
        )

    def _most(self) -> int:
        """The most tokens that a call may ask for."""
        asked = self.spec.max_tokens or self.traits.max_output_tokens
        return max(asked, self.traits.max_output_tokens)

    def _asked_for_most(self) -> bool:
        """Whether the last answer that brought no text had all the tokens there are."""
        asked = self.spec.max_tokens or self.traits.max_output_tokens
        return asked << (self._blank - 1) >= self._most()

    def _max_tokens(self) -> int:
        """Tokens to ask for: as the job says; more after an answer that brought nothing, since a
        small max_tokens can end inside a run of white space or of thinking for ever; never past a
        bound. What thinking once needed, it needs again."""
        asked = self.spec.max_tokens or self.traits.max_output_tokens
        more: int = asked << min(max(self._idle, self._blank), 20)
        wanted = min(more, self._most())
        left = self._tokens_left()
        return wanted if left is None else min(wanted, left)
