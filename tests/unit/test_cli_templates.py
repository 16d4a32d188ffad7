"""``--format`` templates and tables."""

from __future__ import annotations

import pytest

from drivetrain_engine.cli.errors import UsageError
from drivetrain_engine.cli.output import Row, listing, table
from drivetrain_engine.cli.template import Template

DATA = {
    "Name": "web",
    "Config": {"Env": ["A=1", "B=2"], "Labels": {"b": "2", "a": "1"}, "Tty": False},
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "90/tcp": None},
    "Size": 5,
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{.Name}}", "web"),
        ("a {{ .Name }} b", "a web b"),
        ("{{.Config.Tty}} {{.Size}}", "false 5"),
        ("{{.Config.Env}} {{.Config.Labels}}", "[A=1 B=2] map[a:1 b:2]"),
        ("{{json .Config.Env}}", '["A=1","B=2"]'),
        ("{{.Config.Env | json}}", '["A=1","B=2"]'),
        ("{{json .Config.Nope}}", "null"),
        ("{{.Config.Nope}}", "<no value>"),
        ("{{.Config.Nope.Deeper}}", "<no value>"),
        ('{{join .Config.Env ","}}', "A=1,B=2"),
        ('{{index .Config.Labels "a"}}', "1"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{range .Config.Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$e}}{{end}}", "A=1,B=2"),
        ('{{range index .Ports "90/tcp"}}x{{else}}none{{end}}', "none"),
        ("{{if .Config.Tty}}tty{{else}}pipe{{end}}", "pipe"),
        ('{{if eq .Name "db"}}1{{else if eq .Name "web"}}2{{else}}3{{end}}', "2"),
        ("{{with .Config.Labels}}{{.a}}{{end}}", "1"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "web"),
        ("{{range .Config.Env}}{{$.Name}} {{end}}", "web web "),
        ("{{len .Config.Env}} {{len .Config.Nope}}", "2 0"),
        ("{{upper .Name}} {{title .Name}} {{lower `ABC`}}", "WEB Web abc"),
        ('{{printf "%-5s|%d|%q" .Name .Size .Name}}', 'web  |5|"web"'),
        ("{{println .Name}}", "web\n"),
        ("{{if and .Name (not .Config.Tty) (gt .Size 4)}}yes{{end}}", "yes"),
        ("a  {{- .Name -}}  b", "awebb"),
        ("{{.Name}}\\t{{.Size}}", "web\t5"),
        ("{{/* a comment */}}x", "x"),
        ("{{truncate .Name 2}}", "we"),
        ('{{(split "a:b" ":")}}', "[a b]"),
    ],
)
def test_templates_as_go_renders_them(source: str, expected: str) -> None:
    assert Template(source).render(DATA) == expected


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{.Name", "unclosed action"),
        ("{{}}", "missing value"),
        ("{{if .Name}}x", "end"),
        ("{{end}}", "unexpected"),
        ("{{frob .Name}}", "'frob' not defined"),
        ("{{.Name | }}", "missing value"),
        ("{{(.Name}}", "paren"),
        ("{{$x}}", "undefined variable"),
        ("{{.Name.First}}", "can't evaluate field First"),
        ("{{range .Name}}x{{end}}", "range"),
        ("{{index .Config.Env 9}}", "error calling index"),
    ],
)
def test_faults_of_templates_are_told(source: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Template(source).render(DATA)


def test_a_field_that_a_listing_does_not_have_is_an_error_with_those_it_has() -> None:
    with pytest.raises(UsageError, match=r"no field \.Nmae \(known: \.ID, \.Name\)"):
        Template("{{.Nmae}}").render(Row(ID="1", Name="x"))


ROWS = [Row(ID="1", Name="web", Image="busybox"), Row(ID="2", Name="a-much-longer-name", Image="b")]
COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Name"))


def test_tables_are_docker_s(capsys: pytest.CaptureFixture[str]) -> None:
    listing(ROWS, COLUMNS)
    assert capsys.readouterr().out == (
        "CONTAINER ID   NAMES\n1              web\n2              a-much-longer-name\n"
    )


def test_columns_are_ten_wide_at_least(capsys: pytest.CaptureFixture[str]) -> None:
    table(["A", "B"], [["1", "2"]])
    assert capsys.readouterr().out == "A         B\n1         2\n"


def test_quiet_prints_ids_only(capsys: pytest.CaptureFixture[str]) -> None:
    listing(ROWS, COLUMNS, quiet="ID")
    assert capsys.readouterr().out == "1\n2\n"


def test_a_table_template_has_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    listing(ROWS, COLUMNS, form="table {{.Name}}\\t{{.Image}}")
    assert capsys.readouterr().out.splitlines() == [
        "NAMES                IMAGE",
        "web                  busybox",
        "a-much-longer-name   b",
    ]


def test_json_prints_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    listing(ROWS[:1], COLUMNS, form="json")
    assert capsys.readouterr().out == '{"ID":"1","Name":"web","Image":"busybox"}\n'
    listing(ROWS[:1], COLUMNS, form="{{json .}}")
    assert capsys.readouterr().out == '{"ID":"1","Name":"web","Image":"busybox"}\n'
