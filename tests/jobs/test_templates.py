"""Templates and rows: what they give, and what they cannot reach."""

from pathlib import Path

import pytest

from runner.jobs.jobfile import JobFileError, read_job_file
from runner.jobs.templates import MAX_CHARACTERS, BadTemplate, Template, is_template


def fill(source: str, **row: object) -> str:
    return Template(source).fill(row)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("a {{ x }}\n", "a <&>\n"),
        ("{{ n * 2 + 1 }} {{ n % 2 }}", "7 1"),
        ("{% for w in words if w != 'b' %}{{ loop.index }}{{ w }}{% endfor %}", "1a2c"),
        ("{{ words | join(', ') }} {{ x ~ n }}", "a, b, c <&>3"),
        ("{{ d.key }} {{ d['key'] }} {{ d.get('no', 'none') }}", "v v none"),
        ("{{ ' Ab '.strip().lower() }} {{ x | upper | replace('&', '+') }}", "ab <+>"),
        ("{% if n > 2 %}many{% else %}few{% endif %}", "many"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ no | default('nobody') }}", "nobody"),
        ("{{ d | tojson }}", '{"key": "v"}'),
        ("{{ words[:2] }}", "['a', 'b']"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", "012"),
    ],
)
def test_what_templates_give(source: str, text: str) -> None:
    assert fill(source, x="<&>", n=3, words=["a", "b", "c"], d={"key": "v"}) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ x.__init__ }}",
        "{{ ''['__class__'] }}",
        "{{ x | attr('__class__') }}",
        "{{ range.__self__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ '{a.__class__}'.format_map({'a': x}) }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ lipsum.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% extends '/etc/passwd' %}",
        "{% import '/etc/passwd' as p %}",
        "{{ x | random }}",
        "{{ words.append(1) }}",
        "{{ d.update({1: 2}) }}",
    ],
)
def test_what_templates_cannot_reach(source: str) -> None:
    with pytest.raises(BadTemplate):
        fill(source, x="x", words=["a"], d={})


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999999999) %}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x | replace('a', n.x) %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
        "{% for a in range(99999) %}" + "x" * 1000 + "{% endfor %}",
        "{{ range(99999) | join('x' | replace('x', big)) }}",
    ],
)
def test_templates_cannot_run_for_ever(source: str) -> None:
    with pytest.raises(BadTemplate):
        fill(source, big="y" * 1000)


def test_length_is_bounded() -> None:
    assert len(fill("{{ x }}", x="y" * MAX_CHARACTERS)) == MAX_CHARACTERS
    with pytest.raises(BadTemplate, match="grows past"):
        fill("{{ x }}z", x="y" * MAX_CHARACTERS)


def test_undefined_names_are_errors() -> None:
    with pytest.raises(BadTemplate, match="'no' is undefined"):
        fill("{{ no }}", x=1)
    assert Template("{{ a }}{% for b in c %}{{ b }}{% endfor %}{{ range(2) }}").names == {"a", "c"}


def test_what_is_a_template() -> None:
    assert all(is_template(text) for text in ("{{ a }}", "{% if %}", "{# note #}"))
    assert not any(is_template(text) for text in ("{a}", "}}", "{ {", "100%"))


JOB = """
version: 1
defaults: {model: m, system: "For {{ audience }}."}
jobs:
- id: "j-{{ slug }}"
  foreach: ROWS
  messages: [{role: user, content: "A {{ topic }}"}, {role: user, content: [{type: text, text: "B {{ topic }}"}]}]
  metadata: {part: "{{ topic }}", deep: {list: ["{{ slug }}"]}}
  stop_sequences: ["END {{ slug }}"]
  until: {contains: "</{{ slug }}>"}
  params: {note: "{{ untouched }}"}
"""


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "r.csv",
            '\ufeffslug,topic,audience\r\na,"x, ""y""\r\nz",kids\r\n\r\nb,"file:///etc/passwd",all\r\n',
        ),
        (
            "r.jsonl",
            """{"slug": "a", "topic": "x, \\"y\\"\\nz", "audience": "kids"}

            {"slug": "b", "topic": "file:///etc/passwd", "audience": "all", "more": 1}""",
        ),
    ],
)
def test_rows(tmp_path: Path, name: str, rows: str) -> None:
    (tmp_path / name).write_text(rows, newline="")
    path = tmp_path / "jobs.yaml"
    path.write_text(JOB.replace("ROWS", name))
    file = read_job_file(path)
    one, two = file.jobs()
    assert file.job_count == 2
    assert (one.id, two.id) == ("j-a", "j-b")
    assert one.system == "For kids."
    assert one.messages[0]["content"] == 'A x, "y"\nz'
    assert one.messages[1]["content"][0]["text"] == 'B x, "y"\nz'
    assert one.metadata == {"part": 'x, "y"\nz', "deep": {"list": ["a"]}}
    assert one.stop_sequences == ("END a",)
    assert one.until is not None
    assert one.until.contains == "</a>"
    assert one.params == {"note": "{{ untouched }}"}
    assert two.metadata["part"] == "file:///etc/passwd"


def test_a_row_never_names_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "r.csv").write_text("x\nfile://secret.md\n")
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "version: 1\njobs: [{id: 'a{{ 1 }}', model: m, prompt: '{{ x }}', foreach: r.csv}]"
    )
    (job,) = read_job_file(path).jobs()
    assert job.messages[0]["content"] == "file://secret.md"


def test_template_files_and_names_from_rows(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("x\none\ntwo\n")
    (tmp_path / "p.j2").write_text("Write on {{ x }}.\n")
    (tmp_path / "one.md").write_text("style {{ 1 }}")
    (tmp_path / "two.md").write_text("style {{ 2 }}")
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "version: 1\njobs: [{id: 'a-{{ x }}', model: m, prompt: 'file://p.j2',"
        " system: 'file://{{ x }}.md', foreach: r.csv}]"
    )
    one, two = read_job_file(path).jobs()
    assert (one.messages[0]["content"], one.system) == ("Write on one.\n", "style {{ 1 }}")
    assert (two.messages[0]["content"], two.system) == ("Write on two.\n", "style {{ 2 }}")
    (tmp_path / "two.md").unlink()
    with pytest.raises(JobFileError, match=r"r\.csv row 2 \(line 3\): .*two\.md: there is no such"):
        read_job_file(path)


def test_a_long_field(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f"x\n{'y' * 500_000}\n")
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "version: 1\njobs: [{id: 'a{{ 1 }}', model: m, prompt: '{{ x }}', foreach: r.csv}]"
    )
    (job,) = read_job_file(path).jobs()
    assert len(job.messages[0]["content"]) == 500_000
