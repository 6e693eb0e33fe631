"""NVIDIA AIAA's clients against our server.

What they send is sent here by requests, as their sources have it. NVIDIA's Python client itself is on no package
index: set ``AIAA_CLIENT`` to its ``client_api.py``, and the same stories run with it, unchanged.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import time
from email import message_from_bytes
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from overlap import dice

from aiassist.imaging import Volume, read_volume, write_volume
from aiassist.prompts import extreme_points

CLIENT = os.environ.get("AIAA_CLIENT")


@pytest.fixture
def address(server) -> str:
    """The server's address as people type it into clients that know no tokens."""
    return f"{server.url}/t/{server.token}"


@pytest.fixture
def points(spleen):
    return extreme_points(spleen, np.random.default_rng(0)).astype(int).tolist()


def post(address: str, route: str, params, image=None, field: str = "datapoint", **query) -> requests.Response:
    """A form as NVIDIA's clients send it."""
    files = {"params": (None, params if isinstance(params, str) else json.dumps(params))}
    if image is not None:
        files[field] = (f"C:\\Users\\somebody\\..\\{image.name}", image.read_bytes())
    return requests.post(f"{address}{route}", params=query, files=files, timeout=60)


def parts_of(answer: requests.Response) -> tuple[dict, tuple[str, bytes]]:
    """The params of a form, and the name and bytes of its file."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    params, file = message_from_bytes(head + answer.content).get_payload()
    assert params.get_filename() is None
    return json.loads(params.get_payload()), (file.get_filename(), file.get_payload(decode=True))


def mask_of(answer: requests.Response, tmp_path) -> np.ndarray:
    """The file part of an answer, as a mask."""
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    _, (name, data) = parts_of(answer)
    path = tmp_path / name
    path.write_bytes(data)
    return read_volume(path).voxels > 0


def test_models_are_listed_and_chosen(address):
    listed = requests.get(f"{address}/v1/models", timeout=9).json()
    assert {one["type"] for one in listed} == {"annotation", "deepgrow", "segmentation"}
    first = listed[0]
    assert first["name"] == "network" and first["padding"] == 20 and first["roi"] == [128, 128, 128]
    assert {"labels", "description", "version", "internal name", "sigma"} <= set(first)
    assert requests.get(f"{address}/v1/models?model=network", timeout=9).json() == first
    only = requests.get(f"{address}/v1/models?type=deepgrow", timeout=9).json()
    assert {one["type"] for one in only} == {"deepgrow"}
    assert requests.get(f"{address}/v1/models?model=nobody", timeout=9).status_code == 404


def test_extreme_points_give_a_mask_and_come_back(address, image_file, points, spleen, tmp_path):
    for field, route in (("datapoint", "/v1/dextr3d"), ("image", "/v1/v1/dextr3d"), ("image0", "/v1/inference")):
        answer = post(address, route, {"points": points}, image_file, field, model="network")
        assert dice(mask_of(answer, tmp_path), spleen) > 0.9
        assert parts_of(answer)[0] == {"points": points}


@pytest.mark.parametrize("current", [[[40, 50, 60]], [40, 50, 60]])
def test_clicks_give_a_mask(address, image_file, spleen, current, tmp_path):
    k, j, i = np.argwhere(spleen)[len(np.argwhere(spleen)) // 2]
    click = [int(i), int(j), int(k)]
    params = {"foreground": [click], "background": [], "current_point": current, "spatial_size": [128, 128]}
    found = mask_of(post(address, "/v1/deepgrow", params, image_file, model="geodesic_deepgrow"), tmp_path)
    assert found[k, j, i]


@pytest.mark.parametrize("route", ["/v1/segmentation", "/v1/inference"])
def test_an_automatic_model_needs_no_points(address, image_file, volume, route, tmp_path):
    (listed,) = requests.get(f"{address}/v1/models?type=segmentation", timeout=9).json()
    assert (listed["name"], listed["labels"]) == ("lungs-ct", ["lung_left", "lung_right"])
    answer = post(address, route, {}, image_file, model="lungs-ct")
    told, (name, data) = parts_of(answer)
    (tmp_path / name).write_bytes(data)
    found = read_volume(tmp_path / name).voxels
    assert found.shape == volume.shape and np.unique(found).tolist() == [0, 1, 2]
    places = np.argwhere(found)[:, ::-1]
    assert np.min(told["points"], axis=0).tolist() == places.min(axis=0).tolist()
    assert np.max(told["points"], axis=0).tolist() == places.max(axis=0).tolist()
    assert all(found[k, j, i] for i, j, k in told["points"])


def test_a_session_saves_sending_the_image_again_and_expires(address, image_file, points, spleen, tmp_path):
    with image_file.open("rb") as file:
        made = requests.put(f"{address}/session/?expiry=1", files={"image": file}, timeout=60).json()
    session = made["session_id"]
    query = {"model": "network", "session_id": session}
    assert requests.get(f"{address}/session/{session}?update_ts=true", timeout=9).status_code == 200
    assert dice(mask_of(post(address, "/v1/dextr3d", {"points": points}, **query), tmp_path), spleen) > 0.9
    time.sleep(1.1)
    assert post(address, "/v1/dextr3d", {"points": points}, **query).status_code == 440
    assert requests.delete(f"{address}/session/{session}", timeout=9).status_code == 404


def test_ohif_asks_for_the_file_alone_in_its_own_format(address, image_file, points, spleen, tmp_path):
    asked = {"model": "network", "output": "image", "result_extension": ".nrrd", "result_dtype": "uint16"}
    answer = post(address, "/v1/dextr3d", {"points": points}, image_file, result_compress="false", **asked)
    assert b"\nencoding: raw\n" in answer.content[:1000]
    (tmp_path / "out.nrrd").write_bytes(answer.content)
    found = read_volume(tmp_path / "out.nrrd").voxels
    assert found.dtype == np.uint16 and dice(found > 0, spleen) > 0.9


def test_the_cpp_client_speaks_http_1_0(server, address):
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as line:
        line.sendall(f"GET {parts.path}/v1/models HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        data = b""
        while piece := line.recv(65536):
            data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    assert head.split(b"\r\n")[0].split()[1] == b"200" and b"chunked" not in head
    assert json.loads(body)[0]["name"] == "network"


def test_a_mask_becomes_polygons_slice_by_slice(address, mask_file, spleen):
    found = post(address, "/v1/mask2polygon", {"more_points": 3}, mask_file).json()
    assert len(found) == len(spleen)
    assert [bool(one) for one in found] == spleen.any(axis=(1, 2)).tolist()
    k = int(np.argmax(spleen.sum(axis=(1, 2))))
    vertices = np.array(found[k][0])
    rows, columns = np.nonzero(spleen[k])
    assert np.abs(vertices.min(axis=0) - [rows.min(), columns.min()]).max() <= 1  # [j, i]
    assert np.abs(vertices.max(axis=0) - [rows.max(), columns.max()]).max() <= 1
    gaps = np.linalg.norm(np.diff(vertices, axis=0), axis=1)
    assert 2 < gaps.mean() < 6
    assert len(post(address, "/v1/mask2polygon", {"more_points": 10}, mask_file).json()[k][0]) < len(vertices)


def test_a_polygon_is_fixed_in_a_volume_and_its_neighbours_follow(address, image_file, mask_file, spleen, tmp_path):
    poly = post(address, "/v1/mask2polygon", {"more_points": 2}, mask_file).json()
    k = int(np.argmax(spleen.sum(axis=(1, 2))))
    params = {
        "poly": poly,
        "dimension": 3,
        "slice_index": k,
        "polygon_index": 0,
        "vertex_index": 5,
        "vertex_offset": [4, 3],
        "propagate_neighbor": 2,
        "propagate_neighbor_3d": 1,
    }
    answer = post(address, "/v1/fixpolygon", params, image_file)
    told, _ = parts_of(answer)
    assert np.allclose(told["poly"][k][0][5], np.add(poly[k][0][5], [4, 3]), atol=0.02)
    changed = [n for n, (a, b) in enumerate(zip(poly, told["poly"], strict=True)) if a != b]
    assert k in changed and set(changed) <= {k - 1, k, k + 1} and len(changed) > 1
    moved = np.abs(np.array(told["poly"][k][0]) - np.array(poly[k][0])).max(axis=1) > 0.02
    assert moved[5] and moved.sum() <= 7
    mask = mask_of(answer, tmp_path)
    assert mask.shape == spleen.shape and not np.array_equal(mask[k], spleen[k]) and dice(mask, spleen) > 0.97


def test_a_polygon_is_fixed_in_a_picture(address, volume, spleen, tmp_path):
    k = int(np.argmax(spleen.sum(axis=(1, 2))))
    grey = np.clip((volume.voxels[k : k + 1].astype(float) + 160) / 400 * 255, 0, 255).astype(np.uint8)
    flat = volume.geometry.from_spacing(grey.shape, (1, 1, 1))
    for name, voxels in (("image.png", grey), ("mask.png", spleen[k : k + 1].astype(np.uint8) * 255)):
        write_volume(tmp_path / name, Volume(voxels, flat))
    poly = post(address, "/v1/mask2polygon", {"more_points": 2}, tmp_path / "mask.png").json()
    x, y = np.array(poly[0][0][4])
    params = {"poly": poly[0], "dimension": 2, "polygon_index": 0, "vertex_index": 4, "vertex_offset": [2, 1]}
    answer = post(address, "/v1/fixpolygon", {**params, "propagate_neighbor": 1}, tmp_path / "image.png")
    told, (name, _) = parts_of(answer)
    assert np.allclose(told["poly"][0][4], [x + 2, y + 1], atol=0.02) and name.endswith(".png")


SQUARE = [[5, 5], [5, 15], [15, 15], [15, 5]]
PULL = {"slice_index": 0, "polygon_index": 1, "vertex_index": 0, "vertex_offset": [1, 1]}


@pytest.mark.parametrize(
    ("route", "params", "said"),
    [
        ("/v1/dextr3d", {}, "no points"),
        ("/v1/deepgrow", {"background": [[1, 1, 1]]}, "no click inside"),
        ("/v1/dextr3d", {"points": [[1, 2]]}, "not points"),
        ("/v1/segmentation", {}, "needs prompts; run annotate"),
        ("/v1/deepgrow", {"foreground": [], "background": [[1, 1, 1]], "current_point": [1, 1, 1]}, "no click inside"),
        ("/v1/fixpolygon", {"poly": []}, "do not fit"),
        ("/v1/fixpolygon", {**PULL, "poly": [[[[1, 1], [2, 2]], SQUARE]]}, "three or more vertices"),
        ("/v1/fixpolygon", {**PULL, "poly": [[[[1, 1]] * 20_001]]}, "at most 20,000 vertices"),
        ("/v1/dextr3d", "{not json", "no JSON"),
    ],
)
def test_what_is_wrong_is_said(address, image_file, route, params, said):
    answer = post(address, route, params, image_file, model="network")
    assert 400 <= answer.status_code < 500 and said in answer.json()["message"]


def test_a_damaged_image_is_said_without_a_path(address, tmp_path, points):
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b" + b"no image" * 40)
    answer = post(address, "/v1/dextr3d", {"points": points}, tmp_path / "broken.nii.gz", model="network")
    assert answer.status_code == 422 and "tmp" not in answer.json()["message"]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nrrd", "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: {}\n\n"),
        ("a.nrrd", "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndatafile: {}\n\n"),
        ("a.nrrd", "NRRD0004\n" + "# comment\n" * 200_000 + "data file: {}\n\n"),
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {}\n"),
        ("a.png", "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {}\n"),
        ("a.nrrd", "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndat\xff\xffa file: {}\n\n"),
        ("a.nrrd", "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: bzip2\n\n{}"),
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile : {}\n"),
        ("a.mha", "ObjectType = Image\nNDims = 9993\nDimSize = 4 4 4\nElementDataFile = LOCAL\n{}"),
        ("a.mha", "Comment = x\n" * 200_000 + "NDims = 3\nElementDataFile = {}\n"),
        ("a.mha", "NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = LIST\n{}\n"),
    ],
)
def test_a_header_cannot_point_at_the_servers_files(address, tmp_path, name, header):
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(range(64)))
    (tmp_path / name).write_text(header.format(secret), encoding="latin-1")
    answer = post(address, "/v1/mask2polygon", {"more_points": 0}, tmp_path / name)
    assert answer.status_code == 422 and answer.json()["error"] == "UploadError"
    assert requests.get(f"{address}/api/health", timeout=9).status_code == 200


def test_metaimage_and_nrrd_that_hold_their_voxels_are_read(address, tmp_path, volume, spleen):
    for name in ("mask.mha", "mask.nrrd"):
        write_volume(tmp_path / name, Volume(spleen.astype(np.uint8), volume.geometry))
        found = post(address, "/v1/mask2polygon", {"more_points": 3}, tmp_path / name).json()
        assert [bool(one) for one in found] == spleen.any(axis=(1, 2)).tolist()


def test_models_cannot_be_sent(address):
    assert requests.put(f"{address}/admin/model/x", files={"data": b"zip"}, timeout=9).status_code == 422
    assert requests.get(f"{address}/admin/model/network", timeout=9).json()["name"] == "network"


@pytest.mark.skipif(CLIENT is None, reason="AIAA_CLIENT does not name NVIDIA's client_api.py")
def test_nvidias_python_client(address, image_file, mask_file, points, spleen, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)  # NumPy's old name, which the client still uses
    spec = importlib.util.spec_from_file_location("client_api", CLIENT)
    api = sys.modules["client_api"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    client = api.AIAAClient(address)
    assert client.model_list()[0]["name"] == client.model("network")["name"] == "network"
    out = str(tmp_path / "out.nii.gz")
    told = client.dextr3d("network", points, str(image_file), out)  # crops and resamples by itself
    assert len(told["points"]) == 6 and dice(read_volume(out).voxels > 0, spleen) > 0.8
    session = client.create_session(str(image_file), 60)["session_id"]
    assert client.get_session(session)["session_id"] == session
    client.dextr3d("network", points, str(image_file), out, pre_process=False, session_id=session)
    assert dice(read_volume(out).voxels > 0, spleen) > 0.9
    client.inference("network", {"points": points}, str(image_file), out)
    assert dice(read_volume(out).voxels > 0, spleen) > 0.9
    k, j, i = map(int, np.argwhere(spleen)[3000])
    client.deepgrow("network_deepgrow", [[i, j, k]], [], str(image_file), out, session_id=session)
    assert read_volume(out).voxels[k, j, i]
    assert client.close_session(session) is True and client.close_session(session) is False
    with pytest.raises(api.AIAAException) as error:
        client.deepgrow("network_deepgrow", [[i, j, k]], [], str(image_file), out, session_id=session)
    assert error.value.error == api.AIAAError.SESSION_EXPIRED
    polygons = client.mask2polygon(str(mask_file), 3)
    index = [k, 0, 2]
    told = client.fixpolygon(str(image_file), out, polygons, index, [1, 1], [1, 1])
    assert np.allclose(told["poly"][k][0][2], np.array(polygons[k][0][2]) + 1, atol=0.02)
