"""Networks in fewer sums: the same answers, also along the borders; what is not understood is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from streamseg.segment.inspect import inspect_onnx
from streamseg.segment.lighten import lightened
from streamseg.segment.ort import Session
from tests import networks

_MIDDLE, _CELLS, _OUT, _BINS = 6, 5, 3, 4


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))


def network(
    path, *, offset=True, bias=True, tail=True, also=None, size=(4, 5), pads=(1, 1, 1, 1), opset=17, dtype=np.float32
):
    """Planes x (1, 2, h, w) doubled and convolved as y; distributions d (1, 4, 4, n) and their means as m.

    `also` names a tensor that is an output too.
    """
    random = np.random.default_rng(7)

    def weights(*shape):
        return random.normal(size=shape).astype(dtype)

    constants = {
        "up": weights(2, _MIDDLE, 2, 2),
        "k": weights(_CELLS, _MIDDLE, 3, 3),
        "last": weights(_OUT, _CELLS, 1, 1),
    }
    constants |= {"offset": weights(_MIDDLE)} if offset else {}
    constants |= {"bias": weights(_CELLS)} if bias else {}
    constants["bins"] = np.arange(_BINS, dtype=dtype).reshape(1, _BINS, 1, 1)
    nodes = [
        helper.make_node(
            "ConvTranspose", ["x", "up", *(["offset"] if offset else [])], ["u"], kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Conv", ["u", "k", *(["bias"] if bias else [])], ["c"], kernel_shape=[3, 3], pads=pads),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["a"] if tail else ["y"]),
        *([helper.make_node("Conv", ["a", "last"], ["y"], kernel_shape=[1, 1])] if tail else []),
        helper.make_node("Softmax", ["d"], ["p"], axis=1),
        helper.make_node("Conv", ["p", "bins"], ["m"], kernel_shape=[1, 1]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = ["y", "m", *([also] if also else [])]
    graph = helper.make_graph(
        nodes,
        "doubling",
        [
            helper.make_tensor_value_info("x", kind, (1, 2, *size)),
            helper.make_tensor_value_info("d", kind, (1, _BINS, 4, "n")),
        ],
        [helper.make_tensor_value_info(name, kind, (1, None, None, None)) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"stride": "32"})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def of_two_planes(nodes, constants, path, *, also=None):
    """The network of x (1, 2, h, w) and d that gives y, m and rest, and `also`."""
    planes = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, None, None, None))
        for name in ("y", "m", "rest", *([also] if also else []))
    ]
    inputs = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 2, "h", "w")),
        helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, (1, _BINS, 4, 6)),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return networks.save(helper.make_graph(nodes, "planes", inputs, planes, weights), path)


def splitting(path, *, sizes=(2, 3), also=None, activated=True):
    """Planes x (1, 2, h, w) convolved to five, which are split into y and m."""
    random = np.random.default_rng(9)
    constants = {"k": random.normal(size=(5, 2, 3, 3)).astype(np.float32), "b": np.arange(5, dtype=np.float32)}
    constants["sizes"] = np.array(sizes, np.int64)
    nodes = [helper.make_node("Conv", ["x", "k", "b"], ["c"], kernel_shape=[3, 3], strides=[2, 2])]
    if activated:
        nodes += [helper.make_node("Sigmoid", ["c"], ["s"]), helper.make_node("Mul", ["c", "s"], ["a"])]
    nodes.append(helper.make_node("Split", ["a" if activated else "c", "sizes"], ["y", "m"], axis=1))
    nodes.append(helper.make_node("Identity", ["d"], ["rest"]))
    return of_two_planes(nodes, constants, path, also=also)


@pytest.mark.parametrize("activated", [True, False])
def test_planes_that_are_split_have_a_convolution_each(tmp_path, activated):
    path = splitting(tmp_path / "s.onnx", activated=activated)
    light = lightened(path)
    assert operations(light).count("Conv") == 2
    assert "Split" not in operations(light)
    for expected, found in zip(answers(path, (9, 12)), answers(light, (9, 12)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_planes_that_are_wanted_whole_are_split_where_they_were(tmp_path):
    path = splitting(tmp_path / "s.onnx", also="a")
    assert lightened(path) == path


def repeating(path, *, first=True, also=None, how="floor"):
    """Half-size planes of x (1, 2, h, w) repeated beside x itself, and convolutions of all of them to y and m."""
    random = np.random.default_rng(10)
    shapes = {"k": (3, 2, 2, 2), "ky": (4, 5, 1, 1), "km": (2, 5, 1, 1), "by": (4,)}
    constants = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    constants["scales"] = np.float32([1, 1, 2, 2])
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["small"]),
        helper.make_node(
            "Resize",
            ["small", "", "scales"],
            ["large"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode=how,
        ),
        helper.make_node("Concat", ["large", "x"] if first else ["x", "large"], ["all"], axis=1),
        helper.make_node("Conv", ["all", "ky", "by"], ["y"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["all", "km"], ["m"], kernel_shape=[1, 1]),
        helper.make_node("Identity", ["d"], ["rest"]),
    ]
    return of_two_planes(nodes, constants, path, also=also)


@pytest.mark.parametrize("first", [True, False])
def test_planes_are_convolved_before_they_are_repeated(tmp_path, first):
    path = repeating(tmp_path / "r.onnx", first=first)
    light = lightened(path)
    names = operations(light)
    assert "Concat" not in names
    assert names.count("Resize") == 2
    for expected, found in zip(answers(path, (8, 6)), answers(light, (8, 6)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("other", [{"also": "all"}, {"how": "ceil"}])
def test_planes_that_are_wanted_or_not_just_repeated_stay(tmp_path, other):
    path = repeating(tmp_path / "r.onnx", **other)
    assert lightened(path) == path


def operations(path):
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def answers(path, size=(4, 5)):
    random = np.random.default_rng(8)
    feeds = {
        "x": random.normal(size=(1, 2, *size)).astype(np.float32),
        "d": random.normal(scale=8, size=(1, _BINS, 4, 6)).astype(np.float32),
    }
    return Session(path, threads=1).run(["y", "m"], feeds)


@pytest.mark.parametrize("parts", [{}, {"offset": False}, {"bias": False}, {"tail": False}])
def test_the_answers_are_the_same_up_to_rounding_also_at_the_border(tmp_path, parts):
    path = network(tmp_path / "n.onnx", **parts)
    light = lightened(path)
    assert light != path
    assert not {"ConvTranspose", "Softmax"} & set(operations(light))
    for expected, found in zip(answers(path), answers(light), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("far", [-300.0, -75.0, 75.0, 300.0])
def test_means_of_distributions_are_numbers_however_far_from_0_they_lie(tmp_path, far):
    path = network(tmp_path / "n.onnx")
    random = np.random.default_rng(9)
    feeds = {
        "x": np.zeros((1, 2, 4, 5), np.float32),
        "d": (far + random.uniform(-4, 4, (1, _BINS, 4, 6))).astype(np.float32),
    }
    (expected,), (found,) = (Session(each, threads=1).run(["m"], feeds) for each in (path, lightened(path)))
    assert np.isfinite(found).all()
    if abs(far) < 76:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_what_follows_cell_by_cell_is_done_before_the_quarters_are_put_together(tmp_path):
    assert operations(lightened(network(tmp_path / "n.onnx"))).count("Sigmoid") == 4
    # Somebody wants the convolution's own planes: they are put together first.
    path = network(tmp_path / "a.onnx", also="a")
    names = operations(lightened(path))
    assert names.count("Sigmoid") == 4
    assert names.index("DepthToSpace") < names.index("Conv", names.index("DepthToSpace"))


def test_a_plane_of_any_size(tmp_path):
    path = network(tmp_path / "n.onnx", size=("h", "w"))
    for size in ((1, 1), (3, 7)):
        for expected, found in zip(answers(path, size), answers(lightened(path), size), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_inputs_outputs_name_and_metadata_stay_and_it_is_made_once(tmp_path):
    path = network(tmp_path / "n.onnx")
    light = lightened(path)
    made = light.stat().st_mtime_ns
    assert lightened(path) == light
    assert light.stat().st_mtime_ns == made
    before, after = inspect_onnx(path), inspect_onnx(light)
    assert (after.inputs, after.outputs, after.metadata) == (before.inputs, before.outputs, before.metadata)
    assert light.name == path.name


@pytest.mark.parametrize(
    "other",
    [
        {"also": "u", "opset": 12},
        {"opset": 12},
        {"dtype": np.float16},
    ],
)
def test_what_is_not_understood_stays_as_it_is(tmp_path, other):
    path = network(tmp_path / "n.onnx", **other)
    assert lightened(path) == path


@pytest.mark.parametrize("other", [{"also": "u"}, {"pads": (0, 0, 0, 0)}])
def test_each_part_is_left_alone_by_itself(tmp_path, other):
    names = operations(lightened(network(tmp_path / "n.onnx", **other)))
    assert "ConvTranspose" in names
    assert "Softmax" not in names


def test_a_network_without_either_stays(tmp_path):
    path = networks.matte(tmp_path / "m.onnx")
    assert lightened(path) == path


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    path = network(tmp_path / "n.onnx")
    (tmp_path / "file").touch()
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "file"))
    assert lightened(path) == path
