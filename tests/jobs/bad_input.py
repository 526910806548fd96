"""The table of bad input: job files that must be refused whole, and what the refusal must say.

Each case is written into a folder of its own with `BadInput.write`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MISSING = None
FOLDER = b"a folder, not these bytes"
HEAD = b"version: 1\ndefaults: {model: claude-haiku-4-5}\njobs:\n"  # 3 lines


@dataclass(frozen=True)
class BadInput:
    """One job file that must be refused.

    Args:
        files: contents by name; FOLDER makes a folder, MISSING nothing. The first is the job file.
        line, column: of the first problem shown; None where the file as a whole is meant.
        says: pieces of the whole message.
        total: how many problems there are.
        file: the file that the first problem names; None is the job file.
    """

    name: str
    files: dict[str, bytes | None]
    line: int | None
    column: int | None
    says: tuple[str, ...]
    total: int = 1
    file: str | None = None

    def write(self, folder: Path) -> Path:
        """Write the files into `folder`; returns the job file's path."""
        for name, data in self.files.items():
            if data is FOLDER:
                (folder / name).mkdir()
            elif data is not MISSING:
                (folder / name).write_bytes(data)
        return folder / next(iter(self.files))


def yaml(name, text, line, column, *says, total=1):
    """A YAML job file, written out whole."""
    data = text if isinstance(text, bytes) else text.encode()
    return BadInput(name, {"jobs.yaml": data}, line, column, says, total)


def job(name, text, line, column, *says, total=1, files=None):
    """One job (or several) under a sound head. Its first line is line 4."""
    return BadInput(
        name, {"jobs.yaml": HEAD + text.encode(), **(files or {})}, line, column, says, total
    )


def lines(name, text, line, column, *says, total=1):
    """A JSONL job file."""
    data = text if isinstance(text, bytes) else text.encode()
    return BadInput(name, {"jobs.jsonl": data}, line, column, says, total)


def rows(name, template, file, data, line, column, *says, total=1, at=None):
    """A job with `foreach` over one file. The job begins on line 4."""
    text = f"- id: 'a-{{{{ x }}}}'\n  foreach: {file}\n  prompt: {template!r}\n"
    return BadInput(
        name, {"jobs.yaml": HEAD + text.encode(), file: data}, line, column, says, total, at
    )


REQUEST = '{"custom_id": "a", "params": {"model": "m", "messages": [{"role": "user", "content": "x"}]%s}}\n'
GOOD_REQUEST = REQUEST % ""
LAUGHS = "version: 1\nx0: &x0 [a, a, a, a, a, a, a, a, a, a]\n" + "".join(
    f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 9)
)

CASES = [
    # The file
    BadInput("missing file", {"jobs.yaml": MISSING}, None, None, ("there is no such file",)),
    BadInput("a folder", {"jobs.yaml": FOLDER}, None, None, ("this is a folder",)),
    BadInput("unknown kind", {"jobs.txt": b"x"}, None, None, ("Name it .yaml, or .jsonl",)),
    yaml("empty", b"", 1, 1, "the file is empty", "version: 1"),
    yaml("only a comment", b"# nothing\n", 1, 1, "the file is empty"),
    yaml("UTF-16", "version: 1\n".encode("utf-16"), 1, 1, "UTF-16, not UTF-8", "Save the file as UTF-8"),
    yaml("UTF-16 without a mark", "version: 1\n".encode("utf-16-le"), 1, 1, "UTF-16 or binary"),
    yaml("bad UTF-8", b"version: 1\nbatch: \xc3\xa9\xff\n", 2, 9, "byte 0xff at offset 20"),
    yaml("control character", b"version: 1\nbatch: a\x07b\n", 2, 9, "control character (U+0007)"),
    yaml("NUL", b"version: 1\nbatch: a\0b\n", 2, 9, "control character (U+0000)"),
    # YAML
    yaml("tab", "version: 1\njobs:\n\t- id: a\n", 3, 1, "Indent with spaces"),
    yaml("colon in text", "version: 1\nbatch: a: b\n", 2, 9, "not YAML", 'contains ": "'),
    yaml("open quotes", 'version: 1\nbatch: "a\n', 3, 1, "not YAML", "Close the quotes"),
    yaml("at sign", "version: 1\nbatch: @a\n", 2, 8, "Put quotes around"),
    yaml("two documents", "version: 1\n---\nversion: 1\n", 2, 1, "second YAML document"),
    yaml("no mapping", "- a\n", 1, 1, "this is no job file"),
    yaml("a text", "hello\n", 1, 1, "this is no job file"),
    yaml("python tag", "version: 1\nbatch: !!python/object:os.system x\n", 2, 8, "!!python/object:os.system", "Take the tag out"),
    yaml("own tag", "version: 1\nbatch: !env HOME\n", 2, 8, '"!env" is not allowed'),
    yaml("binary tag", "version: 1\nbatch: !!binary aGk=\n", 2, 8, "!!binary"),
    yaml("tag that does not fit", "version: !!int x\n", 1, 10, "!!int does not fit"),
    yaml("alias bomb", LAUGHS, 7, 45, "more than a million values"),
    yaml("alias in itself", "version: 1\njobs: &a [*a]\n", 2, 11, "inside its own value"),
    yaml("unknown alias", "version: 1\nbatch: *nobody\n", 2, 8, "*nobody"),
    yaml("merge of a text", "version: 1\n<<: x\n", 2, 1, "`<<` takes a mapping"),
    yaml("nested too deeply", "version: " + "[" * 200 + "]" * 200, 1, 109, "more than 100 deep"),
    job("duplicate key", "- id: a\n  prompt: x\n  id: b\n", 6, 3, 'the key "id" stands twice (first on line 4)'),
    job("key is a number", "- id: a\n  prompt: x\n  metadata: {1: x}\n", 6, 14, "the key 1 is not a text", "Put quotes"),
    job("number too large", "- id: a\n  prompt: x\n  params: {a: 1e999}\n", 6, 15, "too large"),
    # The head
    yaml("no version", HEAD.split(b"\n", 1)[1] + b"- {id: a, prompt: x}\n", 1, 1, "the version is missing", "Write `version: 1`"),
    yaml("version 2", HEAD.replace(b"1", b"2", 1) + b"- {id: a, prompt: x}\n", 1, 10, "the version is 2"),
    yaml("version true", HEAD.replace(b"1", b"true", 1) + b"- {id: a, prompt: x}\n", 1, 10, "the version is true"),
    yaml("unknown top key", b"bach: x\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 1, 'no key "bach"', "Did you mean `batch`?"),
    yaml("far-off top key", b"zzz: x\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 1, "The keys here are version, batch"),
    yaml("batch with a slash", b"batch: ../x\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 8, '"../x" cannot be a batch\'s name'),
    yaml("no jobs", "version: 1\n", 1, 1, "there are no jobs"),
    yaml("empty jobs", "version: 1\njobs: []\n", 2, 7, "the list of jobs is empty"),
    yaml("jobs is a mapping", "version: 1\njobs: {a: b}\n", 2, 7, "this is no list"),
    yaml("limits is a list", b"limits: [1]\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 9, "this is a list", "Write a mapping"),
    yaml("concurrency 0", b"limits: {concurrency: 0}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 23, "limits.concurrency", "this is 0", "from 1 to 1000"),
    yaml("concurrency true", b"limits: {concurrency: true}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 23, "this is true"),
    yaml("concurrency of a model", b"limits: {concurrency_by_model: {m: x}}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 36, 'this is "x"'),
    yaml("limits typo", b"limits: {max_attempt: 3}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 10, "Did you mean `max_attempts`?"),
    yaml("budget of nothing", b"limits: {max_cost_usd: 0}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 24, "this is 0", "an amount of dollars"),
    yaml("budget with a sign", b"limits: {max_cost_usd: $25}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 24, 'this is "$25"', "without a sign"),
    yaml("way of budgeting", b"limits: {budget: hope}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 18, 'this is "hope"', "`worst` or `expected`"),
    yaml("breaker", b"limits: {breaker: maybe}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 19, 'this is "maybe"', "`on` or `off`"),
    yaml("price without output", b"prices: {m: {input: 1}}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 13, "lacks `output`", "dollars a million tokens"),
    yaml("price of a token by mistake", b"prices: {m: {input: 1, output: 5000000}}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 32, "this is 5000000", "an amount of dollars"),
    yaml("price typo", b"prices: {m: {input: 1, outptu: 2}}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 13, "Did you mean `output`?", "lacks `output`", total=2),
    yaml("pace", b"limits: {requests_per_minute: fast}\n" + HEAD + b"- {id: a, prompt: x}\n", 1, 31, 'this is "fast"', "or `auto`"),
    yaml("defaults is a text", "version: 1\ndefaults: x\njobs: [{id: a, prompt: x, model: m}]\n", 2, 11, "this is no mapping"),
    yaml("id in defaults", "version: 1\ndefaults: {id: a, model: m}\njobs: [{id: a, prompt: x}]\n", 2, 12, "it cannot be shared"),
    yaml("mistake in defaults is told once", "version: 1\ndefaults: {model: m, max_tokens: no}\njobs: [{id: a, prompt: x}, {id: b, prompt: x}]\n", 2, 34, "defaults.max_tokens", 'this is "no"'),
    # Keys and values of a job
    job("not a mapping", "- just text\n", 4, 3, "jobs[0]", "this is no job"),
    job("unknown key", "- id: a\n  promt: x\n", 4, 3, "Did you mean `prompt`?", "the prompt is missing", total=2),
    job("max_calls at the wrong level", "- id: a\n  prompt: x\n  max_calls: 3\n", 6, 3, "`max_calls` belongs under `continuation`"),
    job("concurrency in a job", "- id: a\n  prompt: x\n  concurrency: 3\n", 6, 3, "`concurrency` belongs under `limits`"),
    job("job key in continuation", "- id: a\n  prompt: x\n  continuation: {max_tokens: 3}\n", 6, 18, "`max_tokens` belongs in a job"),
    job("service_tier in a job", "- id: a\n  prompt: x\n  service_tier: auto\n", 6, 3, "Write `params: {service_tier: …}`"),
    job("custom_id in YAML", "- custom_id: a\n  id: b\n  prompt: x\n", 4, 3, "Did you mean `id`?"),
    job("temperature in a job", "- id: a\n  prompt: x\n  temperature: 1\n", 6, 3, "Write `params: {temperature: …}`"),
    job("tools in a job", "- id: a\n  prompt: x\n  tools: []\n", 6, 3, "does not run tools"),
    job("a budget for a job", "- id: a\n  prompt: x\n  max_cost_usd: 1\n", 6, 3, "`max_cost_usd` belongs under `limits`"),
    job("no id", "- prompt: x\n", 4, 3, "the id is missing"),
    job("id is a number", "- id: 12\n  prompt: x\n", 4, 7, "an id is a text, and this is 12", "Put quotes around it"),
    job("id is true", "- id: true\n  prompt: x\n", 4, 7, "this is true", "Put quotes"),
    job("id with a space", "- id: a b\n  prompt: x\n", 4, 7, '"a b" cannot be an id', "1 to 64"),
    job("id too long", f"- id: {'a' * 65}\n  prompt: x\n", 4, 7, "65 characters long"),
    job("id with a line end", '- id: "a\\n"\n  prompt: x\n', 4, 7, '"a\\n" cannot be an id'),
    job("empty id", "- id: ''\n  prompt: x\n", 4, 7, "the id is empty"),
    job("id to be filled in without rows", "- id: 'a-{{ x }}'\n  prompt: x\n", 4, 7, "Add `foreach: rows.csv`"),
    job("duplicate id", "- {id: a, prompt: x}\n- {id: b, prompt: x}\n- {id: a, prompt: y}\n", 6, 8, 'the id "a" is taken already (line 4)'),
    job("no prompt", "- id: a\n", 4, 3, "the prompt is missing", "`prompt: …` or `messages: […]`"),
    job("empty prompt", "- id: a\n  prompt:\n", 5, 10, "the prompt is empty"),
    job("blank prompt", "- id: a\n  prompt: ' \\n '\n".replace("'", '"'), 5, 11, "the prompt is empty"),
    job("prompt is a list", "- id: a\n  prompt: [x]\n", 5, 11, "a prompt is a text, and this is a list"),
    job("prompt and messages", "- id: a\n  prompt: x\n  messages: [{role: user, content: x}]\n", 6, 3, "both `prompt` and `messages`"),
    BadInput("no model", {"jobs.yaml": b"version: 1\njobs:\n- {id: a, prompt: x}\n"}, 3, 3, ("no model is named",)),
    job("model is a number", "- {id: a, prompt: x, model: 4}\n", 4, 29, "4 is no model name"),
    job("model with a space", "- {id: a, prompt: x, model: claude haiku}\n", 4, 29, "no model name"),
    job("max_tokens 0", "- {id: a, prompt: x, max_tokens: 0}\n", 4, 34, "this is 0", "or `auto`"),
    job("max_tokens as text", "- {id: a, prompt: x, max_tokens: '40'}\n", 4, 34, 'this is "40"'),
    job("max_tokens as fraction", "- {id: a, prompt: x, max_tokens: 4.5}\n", 4, 34, "this is 4.5"),
    job("max_tokens with nothing", "- id: a\n  prompt: x\n  max_tokens:\n", 6, 14, "there is nothing after this key"),
    job("blank system", "- {id: a, prompt: x, system: ' '}\n", 4, 30, "the text is empty"),
    job("system is a mapping", "- {id: a, prompt: x, system: {a: b}}\n", 4, 30, "this is a mapping"),
    job("system with an image", "- {id: a, prompt: x, system: [{type: image}]}\n", 4, 31, "this is no text block"),
    job("stop_sequences is a text", "- {id: a, prompt: x, stop_sequences: END}\n", 4, 38, "Write a list"),
    job("blank stop sequence", "- {id: a, prompt: x, stop_sequences: [END, ' ']}\n", 4, 44, "stop_sequences[1]"),
    job("thinking without type", "- {id: a, prompt: x, thinking: {budget_tokens: 9}}\n", 4, 32, "the type is missing"),
    job("thinking is a word", "- {id: a, prompt: x, thinking: adaptive}\n", 4, 32, "Write a mapping"),
    job("output_config is a list", "- {id: a, prompt: x, output_config: []}\n", 4, 37, "this is a list"),
    job("metadata is a list", "- {id: a, prompt: x, metadata: []}\n", 4, 32, "this is a list"),
    job("priority as word", "- {id: a, prompt: x, priority: high}\n", 4, 32, 'this is "high"'),
    job("params is a list", "- {id: a, prompt: x, params: [a]}\n", 4, 30, "this is a list"),
    job("model in params", "- {id: a, prompt: x, params: {model: m}}\n", 4, 31, "it has a key of its own"),
    job("stream in params", "- {id: a, prompt: x, params: {stream: false}}\n", 4, 31, "every answer is streamed"),
    job("temperature in params", "- {id: a, prompt: x, model: claude-opus-5-5, params: {temperature: 0}}\n", 4, 55, "claude-opus-5-5 refuses `temperature`"),
    job("thinking the model refuses", "- {id: a, prompt: x, model: claude-opus-5-5, thinking: {type: disabled}}\n", 4, 56, 'refuses thinking of type "disabled"', "It takes `adaptive`"),
    job("tools in params", "- {id: a, prompt: x, params: {tool_choice: {}}}\n", 4, 31, "does not run tools"),
    job("typo in params", "- {id: a, prompt: x, params: {max_token: 3}}\n", 4, 31, "Did you mean `max_tokens`?"),
    job("unknown strategy", "- {id: a, prompt: x, continuation: {strategy: best}}\n", 4, 47, "Write `auto`, `prefill` or `turn`"),
    job("max_calls 0", "- {id: a, prompt: x, continuation: {max_calls: 0}}\n", 4, 48, "continuation.max_calls"),
    job("continuation is a word", "- {id: a, prompt: x, continuation: auto}\n", 4, 36, "Write a mapping"),
    job("until is a text", "- {id: a, prompt: x, until: END}\n", 4, 29, "until: {contains:"),
    job("until without a condition", "- {id: a, prompt: x, until: {stop: true}}\n", 4, 29, "there is no condition here"),
    job("until blank", "- {id: a, prompt: x, until: {contains: ''}}\n", 4, 40, "not blank"),
    job("two conditions", "- {id: a, prompt: x, until: {contains: E, min_words: 3}}\n", 4, 43, "more than one condition", "all: [{contains: …}, {min_words: …}]"),
    job("until typo", "- {id: a, prompt: x, until: {matchs: E}}\n", 4, 30, "Did you mean `matches`?"),
    job("pattern with look-around", "- {id: a, prompt: x, until: {matches: '(?=E)'}}\n", 4, 39, "invalid perl operator", "RE2's syntax"),
    job("pattern that is not closed", "- {id: a, prompt: x, until: {matches: '(E'}}\n", 4, 39, "missing )"),
    job("pattern that matches nothing at all", "- {id: a, prompt: x, until: {matches: 'E*'}}\n", 4, 39, "matches the empty text"),
    job("pattern too long", f"- {{id: a, prompt: x, until: {{matches: {'E' * 1001}}}}}\n", 4, 39, "1,001 characters long"),
    job("pattern too large", "- {id: a, prompt: x, until: {matches: '((a{100}){100}){100}'}}\n", 4, 39, "cannot be used as a regular expression"),
    job("min_words 0", "- {id: a, prompt: x, until: {min_words: 0}}\n", 4, 41, "this is 0", "from 1 to"),
    job("min_chars as text", "- {id: a, prompt: x, until: {min_chars: many}}\n", 4, 41, 'this is "many"'),
    job("closes_tags false", "- {id: a, prompt: x, until: {closes_tags: false}}\n", 4, 43, "this is false", "names of tags"),
    job("closes_tags with brackets", "- {id: a, prompt: x, until: {closes_tags: ['<a>']}}\n", 4, 43, "without `<` and `>`"),
    job("all is empty", "- {id: a, prompt: x, until: {all: []}}\n", 4, 35, "a list of 1 to 20 conditions"),
    job("stop within all", "- {id: a, prompt: x, until: {all: [{contains: E, stop: true}]}}\n", 4, 50, "`stop` cannot stand within `all`"),
    job("stop is a word", "- {id: a, prompt: x, until: {contains: E, stop: here}}\n", 4, 49, 'this is "here"'),
    job("stop in a job", "- {id: a, prompt: x, stop: [E]}\n", 4, 22, "Did you mean `stop_sequences`?"),
    job("max_nudges at the wrong level", "- {id: a, prompt: x, until: {contains: E, max_nudges: 3}}\n", 4, 43, "`max_nudges` belongs under `continuation`"),
    job("max_nudges too many", "- {id: a, prompt: x, continuation: {max_nudges: 101}}\n", 4, 49, "from 0 to 100"),
    job("seam_retries negative", "- {id: a, prompt: x, continuation: {seam_retries: -1}}\n", 4, 51, "from 0 to 10"),
    job("on_unverified_seam", "- {id: a, prompt: x, continuation: {on_unverified_seam: ask}}\n", 4, 57, "Write `flag` or `fail`"),
    # Messages
    job("no messages", "- {id: a, messages: []}\n", 4, 21, "the list is empty"),
    job("messages is a text", "- {id: a, messages: hi}\n", 4, 21, "Write a list such as"),
    job("message is a text", "- {id: a, messages: [hi]}\n", 4, 22, "messages[0]"),
    job("role system", "- {id: a, messages: [{role: system, content: x}, {role: user, content: x}]}\n", 4, 29, "under the key `system`"),
    job("no role", "- {id: a, messages: [{content: x}]}\n", 4, 22, "the role is missing"),
    job("no content", "- {id: a, messages: [{role: user}]}\n", 4, 22, "the content is missing"),
    job("blank content", "- {id: a, messages: [{role: user, content: ' '}]}\n", 4, 44, "the text is empty"),
    job("content is a number", "- {id: a, messages: [{role: user, content: 3}]}\n", 4, 44, "this is 3"),
    job("empty block list", "- {id: a, messages: [{role: user, content: []}]}\n", 4, 44, "the list is empty"),
    job("block type typo", "- {id: a, messages: [{role: user, content: [{type: documnet}]}]}\n", 4, 52, "Did you mean `document`?"),
    job("tool block", "- {id: a, messages: [{role: user, content: [{type: tool_result}]}]}\n", 4, 52, "does not run tools"),
    job("blank text block", "- {id: a, messages: [{role: user, content: [{type: text, text: ''}]}]}\n", 4, 64, "the text is empty"),
    job("extra key in a message", "- {id: a, messages: [{role: user, content: x, name: y}]}\n", 4, 47, 'no key "name"'),
    job("last message is the assistant's", "- {id: a, messages: [{role: user, content: x}, {role: assistant, content: y}]}\n", 4, 48, "End with a user message"),
    # Files of texts
    job("missing text file", "- {id: a, prompt: 'file://none.md'}\n", 4, 19, "jobs[0].prompt", "none.md: there is no such file"),
    job("text file is bad UTF-8", "- {id: a, prompt: x, system: 'file://s.md'}\n", 4, 30, "s.md:2:2: not UTF-8", files={"s.md": b"ok\na\xff"}),
    job("text file is blank", "- {id: a, prompt: 'file://s.md'}\n", 4, 19, "the prompt is empty", files={"s.md": b"\n\n"}),
    job("text file is a folder", "- {id: a, prompt: 'file://.'}\n", 4, 19, "this is a folder"),
    job("no name after file://", "- {id: a, prompt: 'file://'}\n", 4, 19, "names no file"),
    job("template file without rows", "- {id: a, prompt: 'file://s.j2'}\n", 4, 19, "this job has no rows", files={"s.j2": b"x"}),
    # Rows
    job("missing rows", "- {id: 'a-{{ x }}', prompt: x, foreach: none.csv}\n", 4, 41, "none.csv: there is no such file"),
    job("rows of an unknown kind", "- {id: 'a-{{ x }}', prompt: x, foreach: a.xls}\n", 4, 41, "Use a .csv or a .jsonl file"),
    job("foreach is a list", "- {id: 'a-{{ x }}', prompt: x, foreach: [1]}\n", 4, 41, "Name a .csv or .jsonl file"),
    rows("empty rows", "p {{ x }}", "r.csv", b"", 5, 12, "there are no rows"),
    rows("header only", "p {{ x }}", "r.csv", b"x,y\n", 5, 12, "there are no rows"),
    rows("row too wide", "p {{ x }}", "r.csv", b"x,y\n1,2\n3,4,5\n", 3, 1, "row 2", "3 values where the header has 2", at="r.csv"),
    rows("row too narrow after a quoted line end", "p {{ x }}", "r.csv", b'x,y\n1,"2\n2"\n3\n', 4, 1, "row 2", "1 value where the header has 2", at="r.csv"),
    rows("column twice", "p {{ x }}", "r.csv", b"x,x\n1,2\n", 1, 1, 'two columns have the name "x"', at="r.csv"),
    rows("column without a name", "p {{ x }}", "r.csv", b"x,\n1,2\n", 1, 1, "column 2 has no name", at="r.csv"),
    rows("semicolons", "p {{ x }}", "r.csv", b"x;y\n1;2\n", 1, 1, "not parted by commas", at="r.csv"),
    rows("CSV is bad UTF-8", "p {{ x }}", "r.csv", b"x,y\n1,\xe9\n", 2, 3, "byte 0xe9 at offset 6", at="r.csv"),
    rows("open quotes in CSV", "p {{ x }}", "r.csv", b'x,y\n1,"2\n', 2, 1, "not CSV", at="r.csv"),
    rows("no row has the name", "p {{ topic }}", "r.csv", b"x,y\n1,2\n3,4\n", 6, 11, 'no row has "topic"', "The rows have x, y"),
    rows("no row has the name (JSONL)", "p {{ topic }}", "r.jsonl", b'{"x": "1"}\n{"x": "2", "y": 1}\n', 6, 11, 'no row has "topic"', "The rows have x, y"),
    rows("one row lacks the name", "p {{ y }}", "r.jsonl", b'{"x": "1", "y": 2}\n{"x": "2"}\n', 6, 11, "r.jsonl line 2", "'y' is undefined"),
    rows("row is no object", "p {{ x }}", "r.jsonl", b'{"x": "1"}\n[1]\n', 2, 1, "Each row is an object", at="r.jsonl"),
    rows("row is no JSON", "p {{ x }}", "r.jsonl", b'{"x": "1"}\n{"x": 1,}\n', 2, 9, "not JSON", at="r.jsonl"),
    rows("template error in one row", "p {{ 1 // (x|int) }}", "r.csv", b"x\n1\n0\n", 6, 11, "r.csv row 2 (line 3)", "division"),
    rows("template syntax", "p {{ x", "r.csv", b"x\n1\n", 6, 11, "not a template"),
    rows("template import", "{% import 'x' as y %}{{ x }}", "r.csv", b"x\n1\n", 6, 11, "`import` is not available"),
    rows("template reaches into Python", "{{ x.__class__.__mro__ }}", "r.csv", b"x\n1\n", 6, 11, "unsafe"),
    rows("template without end", "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}{{ x }}", "r.csv", b"x\n1\n", 6, 11, "go round more than"),
    rows("template of enormous length", "{{ x * 1000000000 }}", "r.csv", b"x\n1\n", 6, 11, "`*` is for numbers"),
    rows("unknown filter", "{{ x | nosuch }}", "r.csv", b"x\n1\n", 6, 11, "nosuch"),
    rows("ids of two rows are the same", "p {{ x }}", "r.csv", b"x\n1\n2\n1\n", 4, 7, "r.csv row 3 (line 4)", 'the id "a-1" is taken already (line 4, r.csv row 1 (line 2))'),
    rows("id from a row is ill-formed", "p {{ x }}", "r.csv", b"x\n1\na b\n", 4, 7, "jobs[0].id, r.csv row 2 (line 3)", '"a-a b" cannot be an id'),
    rows("prompt from a row is blank", "{{ y }}", "r.csv", b"x,y\n1,2\n2,\n", 6, 11, "row 2", "the prompt is empty"),
    job("id without a column", "- {id: a, prompt: 'p {{ x }}', foreach: r.csv}\n", 4, 8, "the same for every row", files={"r.csv": b"x\n1\n2\n"}),
    job("setting is told once for all rows", "- {id: 'a{{ x }}', prompt: p, priority: x, foreach: r.csv}\n", 4, 41, 'this is "x"', files={"r.csv": b"x\n1\n2\n"}),
    job("row leads out of the folder", "- {id: 'a{{ x }}', prompt: 'file://{{ y }}', foreach: r.csv}\n", 4, 28, "must stay in the job file's folder", files={"r.csv": b"x,y\n1,../../etc/passwd\n"}),
    # Message Batches requests
    lines("empty JSONL", "", 1, 1, "the file is empty", "custom_id"),
    lines("blank JSONL", "\n \n", 1, 1, "the file is empty"),
    lines("JSONL is UTF-16", GOOD_REQUEST.encode("utf-16"), 1, 1, "UTF-16"),
    lines("JSONL is bad UTF-8", GOOD_REQUEST.encode() + b'{"a": "\xff"}\n', 2, 8, "not UTF-8"),
    lines("JSON syntax", GOOD_REQUEST + '{"custom_id": }\n', 2, 15, "not JSON: expecting value"),
    lines("JSON duplicate key", '{"custom_id": "a", "params": {"model": "m", "model": "n"}}\n', 1, 45, 'the key "model" stands twice'),
    lines("JSON NaN", REQUEST % ', "x": NaN', 1, 1, "NaN is not JSON"),
    lines("JSON number too large", REQUEST % ', "x": 1e999', 1, 1, "too large"),
    lines("JSON nested too deeply", REQUEST % (', "x": ' + "[" * 200 + "]" * 200), 1, 1, "more than 100 deep"),
    lines("half a character", '{"custom_id": "a", "params": {"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}}\n', 1, 86, "half a character (\\ud800)"),
    lines("no object", "[1]\n", 1, 1, "this is a list, not a request"),
    lines("own form in JSONL", '{"id": "a", "prompt": "x"}\n', 1, 1, "not a Message Batches request", "foreach"),
    lines("unknown key of a request", '{"custom_id": "a", "parms": {}}\n', 1, 1, "Did you mean `params`?", "the params are missing", total=2),
    lines("no custom_id", '{"params": {"model": "m", "messages": [{"role": "user", "content": "x"}]}}\n', 1, 1, "the custom_id is missing"),
    lines("custom_id is a number", GOOD_REQUEST.replace('"a"', "7"), 1, 15, "an id is a text, and this is 7"),
    lines("custom_id with a dot", GOOD_REQUEST.replace('"a"', '"a.b"'), 1, 15, '"a.b" cannot be an id'),
    lines("custom_id twice", GOOD_REQUEST + "\n" + GOOD_REQUEST, 3, 15, "taken already (line 1)"),
    lines("stream in a request", REQUEST % ', "stream": true', 1, 93, "params.stream", "every answer is streamed"),
    lines("temperature in a request", (REQUEST % ', "temperature": 1').replace('"model": "m"', '"model": "claude-opus-5"'), 1, 105, "params.temperature", "claude-opus-5 refuses `temperature`"),
    lines("tools in a request", REQUEST % ', "tools": []', 1, 93, "params.tools", "does not run tools"),
    lines("max_tokens of a request", REQUEST % ', "max_tokens": "many"', 1, 107, "params.max_tokens", 'this is "many"'),
    lines("typo in a request", REQUEST % ', "stop_sequence": []', 1, 93, "Did you mean `stop_sequences`?"),
    lines("request without model", GOOD_REQUEST.replace('"model": "m", ', ""), 1, 30, "params: no model is named", "in the params"),
    lines("request without messages", '{"custom_id": "a", "params": {"model": "m"}}', 1, 30, "the messages are missing"),
    lines("JSON number of thousands of digits", REQUEST % (', "x": ' + "9" * 5000), 1, 1, "thousands of digits"),
    lines("final assistant message", GOOD_REQUEST.replace("user", "assistant"), 1, 58, "params.messages[0]", "End with a user message"),
]  # fmt: skip
