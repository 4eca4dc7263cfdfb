from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from streamseg import configdoc
from streamseg.config import Settings, keys, load_runs, load_settings, parse_background, presets
from streamseg.errors import ConfigError

ROOT = Path(__file__).parent.parent


def test_full_yaml_holds_every_key_at_its_default() -> None:
    assert (ROOT / "configs" / "full.yaml").read_text("utf-8") == configdoc.full_yaml()
    assert load_settings(str(ROOT / "configs" / "full.yaml")) == Settings()


def test_the_reference_page_is_generated() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text("utf-8") == configdoc.markdown()


def test_every_key_says_what_it_means() -> None:
    assert all(meaning for _, _, meaning in keys().values())


@pytest.mark.parametrize("name", ["zoom", "dashcam", "rtsp", "full"])
def test_presets_load_by_name(name: str) -> None:
    assert name in presets()
    load_settings(name)


def test_assignments_override_yaml_and_yaml_overrides_defaults(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("temporal: {half_life_s: 0.3, smoother: none}\n")
    settings = load_settings(str(path), ["temporal.half_life_s=0.5"], {"keep.classes": "car, dog"})
    assert settings.temporal.half_life_s == 0.5
    assert settings.temporal.smoother == "none"
    assert settings.keep.classes == ["car", "dog"]
    assert settings.edges == Settings().edges


@pytest.mark.parametrize("word", ["auto", "yes", "no"])
def test_yes_and_no_are_words_where_words_are_asked_for(word: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"source: {{wait: {word}}}\n")
    assert load_settings(str(path)).source.wait == load_settings(None, [f"source.wait={word}"]).source.wait == word


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temporal:\n\thalf_life_s: 1\n", "line 2: .*(tab|character)"),
        ("task: background\ntask: background\n", "'task' stands twice"),
        ("temporal: {half_life_s: 1, half_life_s: 2}", "'half_life_s' stands twice"),
        ("temporal: {half_life_s: soon}", "temporal.half_life_s must be a valid number.*'soon'"),
        ("temporal: {half_life_s: -1}", "temporal.half_life_s must be greater than or equal to 0, not -1"),
        ("temporal: {halflife_s: 1}", "unknown key 'temporal.halflife_s'.*did you mean 'temporal.half_life_s'"),
        ("feather: 0.5", "unknown key 'feather'.*did you mean 'edges.feather'"),
        ("temporal: 5", "temporal in .* is a section, not a int; write `temporal:` and beneath it, .* `smoother: "),
        ("background: green", "background in .* is a section, not a str; write"),
        ("background.spec: green", "background.spec in .*: write `background:` and beneath it, indented, `spec: "),
        ("model: {threads: yes}", "model.threads: must be a number, not true"),
        ("edges: {feather: off}", "edges.feather: must be a number, not false"),
        ("- a\n- b\n", "top level must be"),
        ("a: [1, 2", "line"),
        ("background: {spec: 'beach.jpg'}", "background.spec: 'beach.jpg' is no background; use blur"),
        ("temporal: {smoother: magic}", "temporal.smoother must be 'uncertainty'"),
        ("keep: {classes: 7}", "keep.classes must be a valid list"),
    ],
)
def test_a_bad_file_is_named_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(str(path))
    assert "\n" not in str(caught.value)
    assert "bad.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("edges.fether=1", "did you mean 'edges.feather'"),
        ("edges.feather", "key=value"),
        ("edges.feather=9", "less than"),
    ],
)
def test_a_bad_assignment_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(None, [assignment])


def test_a_missing_file_names_the_nearest_preset() -> None:
    with pytest.raises(ConfigError, match="did you mean 'zoom'"):
        load_settings("zooom")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert load_settings(str(path)) == Settings()


@pytest.mark.parametrize(
    ("spec", "meaning"),
    [
        ("blur", ("blur", 0.5)),
        ("blur:0.6", ("blur", 0.6)),
        ("image:a:b.jpg", ("image", "a:b.jpg")),
        ("video:x.mp4", ("video", "x.mp4")),
        ("color:#102030", ("color", (16, 32, 48))),
        ("green", ("color", (0, 177, 64))),
        ("color:white", ("color", (255, 255, 255))),
        ("transparent", ("transparent", None)),
        ("none", ("none", None)),
    ],
)
def test_backgrounds(spec: str, meaning: object) -> None:
    assert parse_background(spec) == meaning


@pytest.mark.parametrize(
    "spec", ["", "blur:2", "blur:x", "image:", "color:red1", "color:", "beach.jpg", "transparent:1"]
)
def test_bad_backgrounds(spec: str) -> None:
    with pytest.raises(ValueError, match=r"blur|image:|color"):
        parse_background(spec)


def test_full_yaml_is_plain_yaml() -> None:
    assert isinstance(yaml.safe_load(configdoc.full_yaml()), dict)


def test_streams_share_the_file_and_override_it(tmp_path: Path) -> None:
    path = tmp_path / "cams.yaml"
    path.write_text(
        "model: {name: yolov8n-seg, size: 384x224}\n"
        "source: {transport: udp}\n"
        "streams:\n"
        "  front: {source: {url: 'rtsp://a/1'}, output: {sinks: [a.mkv]}}\n"
        "  yard.2: {source: {url: 'rtsp://b/1', transport: tcp}, model: {confidence: 0.5}}\n"
    )
    runs = load_runs(str(path), ["model.iou=0.5"])
    assert list(runs) == ["front", "yard.2"]
    assert runs["front"].source.transport == "udp"
    assert runs["yard.2"].source.transport == "tcp"
    assert [run.model.size for run in runs.values()] == ["384x224"] * 2
    assert [run.model.confidence for run in runs.values()] == [0.25, 0.5]
    assert [run.model.iou for run in runs.values()] == [0.5] * 2
    with pytest.raises(ConfigError, match="names several streams"):
        load_settings(str(path))
    with pytest.raises(ConfigError, match="leave out the source"):
        load_runs(str(path), [], {"source.url": "x.mp4"})


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ("[a, b]", "must be a mapping of names"),
        ("{}", "must be a mapping of names"),
        ("{'a b': {}}", "needs a name of letters"),
        ("{a: 3}", "stream a must be a mapping"),
        ("{a: {sorce: {url: x}}}", "unknown key 'sorce'"),
        ("{a: {source: {urk: x}}}", "did you mean 'source.url'"),
        ("{a: {source: {rotate: 45}}}", "stream a"),
    ],
)
def test_wrong_streams_are_told(streams: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cams.yaml"
    path.write_text(f"streams: {streams}\n")
    with pytest.raises(ConfigError, match=message):
        load_runs(str(path))


def test_the_environment_fills_in_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cam.yaml"
    path.write_text("source: {url: 'rtsp://me:${CAM_PASSWORD}@cam/1'}\noutput: {sinks: ['${CAM_OUT}/a.mkv', b.mkv]}\n")
    monkeypatch.setenv("CAM_PASSWORD", "p@ss")
    monkeypatch.setenv("CAM_OUT", "/out")
    settings = load_settings(str(path))
    assert settings.source.url == "rtsp://me:p@ss@cam/1"
    assert settings.output.sinks == ["/out/a.mkv", "b.mkv"]
    monkeypatch.delenv("CAM_PASSWORD")
    with pytest.raises(ConfigError, match=r"uses \$\{CAM_PASSWORD\}, and there is no such environment variable"):
        load_settings(str(path))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("source.size", "0x480", "must be auto or WxH"),
        ("source.transport", "sctp", "tcp"),
        ("source.rotate", "45", "source.rotate"),
        ("output.segment", "10 parsecs", "is no duration"),
        ("output.max_disk", "plenty", "is no size"),
        ("live.slate", "photo.jpg", "takes card, background or image:PATH"),
        ("live.slate", "image:", "takes card, background or image:PATH"),
    ],
)
def test_wrong_live_settings_are_told(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(None, [f"{key}={value}"])


@pytest.mark.parametrize("value", ["123456", "0123", "1.50", "yes", "2024-01-02", "12:30", "'0x1F'"])
def test_a_token_is_the_text_that_was_written(value: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"output: {{token: {value}}}\n")
    assert load_settings(str(path)).output.token == value.strip("'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output: {token: [S3cret]}", "output.token must be a valid string, not a list"),
        ("output: {token: {a: S3cret}}", "output.token must be a valid string, not a dict"),
        ("output: S3cret", "output in .* is a section, not a str"),
        ("output: {token: '${S}'}", "output.token holds a control character; take it out"),
        ("output: {token: *S3cret}", r"line 1: a text that starts with \*, & or ! needs quotes"),
        ("output: {token: !S3cret x}", r"line 1: a text that starts with \*, & or ! needs quotes"),
        ("output: {sinks: [{a: S3cret}]}", "output.sinks.0 must be a valid string, not a dict"),
        ("source: {url: ['rtsp://me:S3cret@cam']}", "source.url must be a valid string, not a list"),
        ("source: {url: 'rtsp://me:${S}@cam/1'}", "source.url holds a control character; take it out"),
        ("source: {sub: 'rtsp://me:${S}@cam/1'}", "source.sub holds a control character; take it out"),
        ("output: {sinks: ['rtmp://host/live/${S}']}", "output.sinks holds a control character; take it out"),
        ("background: {spec: 'rtsp://me:S3cret@cam'}", r"'rtsp://\*\*\*@cam' is no background"),
        ("'rtsp://me:S3cret@cam': 1", r"unknown key 'rtsp://\*\*\*@cam'"),
        ("streams: {a: S3cret}", "stream a must be a mapping of settings, not str"),
    ],
)
def test_errors_hold_no_secrets(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    monkeypatch.setenv("S", "S3cret\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_runs(str(path))
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("assignment", ["output.tokn=S3cret", "output.token:S3cret"])
def test_wrong_assignments_hold_no_secrets(assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"output\.tok|key=value") as caught:
        load_settings(None, [assignment])
    assert "S3cret" not in str(caught.value)


def test_a_section_whose_lines_are_all_comments_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sparse.yaml"
    path.write_text("edges:\n  # radius: 0.01\ntemporal:\n")
    assert load_settings(str(path)) == load_settings()
    assert load_settings(str(path), ["edges.feather=0.25"]).edges.feather == 0.25


def test_what_is_wrong_on_the_command_line_is_not_said_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text("edges: {radius: 0.01}")
    for assignments, arguments in ((["edges.radius=wide"], {}), ([], {"edges.radius": "wide"})):
        with pytest.raises(ConfigError, match=r"'wide' \(from the command line\)$"):
            load_settings(str(path), assignments, arguments)
    with pytest.raises(ConfigError, match=r"'edges' in --set is a section; name a key in it, such as edges\.mode"):
        load_settings(str(path), ["edges=3"])
