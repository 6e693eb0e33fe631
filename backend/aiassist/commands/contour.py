"""``aiassist contour``"""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

from aiassist.commands.shared import check_mask_name, check_output, check_picture, one_structure, point
from aiassist.errors import AIAssistError, ContourError
from aiassist.words import counted

AXES = ("axial", "coronal", "sagittal")
#: A vertex is taken hold of from at most this far, in mm, or twice the distance between vertices.
NEAR = 10.0


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("contour", help="outlines of a mask's slices, and pulling them onto the border")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    trace = actions.add_parser("trace", help="write the outlines of a mask as JSON")
    trace.add_argument("mask", help="a mask or labelmap file")
    trace.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.json", help="where to write them")
    trace.add_argument("--slice", type=int, metavar="N", help="one slice (default: all that hold the structure)")
    trace.set_defaults(run=trace_mask)
    snap = actions.add_parser("snap", help="pull one vertex of an outline; the rest settles on the border")
    snap.add_argument("image", help="an image file, or a folder with one DICOM series")
    snap.add_argument("mask", help="a mask or labelmap on the same grid")
    snap.add_argument("-o", "--output", required=True, metavar="MASK", help="where to write the corrected mask")
    snap.add_argument("--from", dest="start", metavar="I,J,K", type=point, required=True, help="near the vertex")
    snap.add_argument("--to", dest="target", metavar="I,J,K", type=point, required=True, help="where it goes")
    snap.add_argument("--radius", type=float, default=20.0, metavar="MM", help="along the outline (default: 20)")
    snap.add_argument("--strength", type=float, default=1.0, help="0 moves smoothly, 1 settles fully (default: 1)")
    snap.add_argument("--propagate", type=int, default=0, metavar="N", help="carry it to N slices on each side")
    snap.add_argument("--picture", type=Path, metavar="PNG", help="draw what changed")
    snap.set_defaults(run=snap_mask)
    for action in (trace, snap):
        action.add_argument("--axis", choices=AXES, default="axial", help="which slices (default: axial)")
        action.add_argument("--value", type=int, metavar="N", help="which value of the mask, where it holds several")
        action.add_argument("--distance", type=float, default=3.0, metavar="MM", help="between vertices (default: 3)")


def across(geometry, name: str) -> int:
    """The array axis (0 for k) across which slices of this name are stacked: nearest to the patient's own."""
    from aiassist.segmenters.overview import patients_axes

    return patients_axes(geometry)[AXES.index(name)]


def trace_mask(options) -> None:
    """Write the outlines: for each slice its rings as voxel indices i,j,k."""
    from aiassist.contour import Plane, trace
    from aiassist.files import check_writable, whole_file
    from aiassist.imaging import read_labelmap

    check_output(options.output, options.mask)
    if options.output.suffix.lower() != ".json":
        raise AIAssistError(f"{options.output} is no name for JSON; end it in .json.")
    check_writable(options.output)
    labelmap = read_labelmap(options.mask)
    mask = one_structure(labelmap.voxels, options.mask, options.value)
    axis = across(labelmap.geometry, options.axis)
    others = tuple(a for a in range(3) if a != axis)
    indices = mask.any(axis=others).nonzero()[0].tolist() if options.slice is None else [options.slice]
    slices = []
    for index in indices:
        plane = Plane(labelmap.geometry, axis, index)
        rings = trace(plane.of(mask), plane.spacing, options.distance)
        outlines = [{"hole": ring.hole, "points": plane.to_ijk(ring.points).round(4).tolist()} for ring in rings]
        slices.append({"index": index, "rings": outlines})
    with whole_file(options.output) as temporary:
        temporary.write_text(
            json.dumps({"axis": options.axis, "across": "kji"[axis], "slices": slices}), encoding="utf8"
        )
    outlines = counted(sum(len(s["rings"]) for s in slices), "outline")
    print(f"{options.output}: {outlines} on {counted(len(slices), 'slice')}.")


def snap_mask(options) -> None:
    """Pull, write the corrected mask, say what changed."""
    from aiassist.contour import ContourSession
    from aiassist.files import check_writable
    from aiassist.imaging import MaskPatch, Volume, read_labelmap, read_volume, write_volume
    from aiassist.imaging.image_files import check_holds
    from aiassist.segmenters.strokes import clicked_voxels

    output = check_mask_name(options.output)
    check_output(output, options.image, options.mask)
    check_writable(output)
    if options.picture:
        from aiassist.evaluation.pictures import pyplot

        pyplot()  # says now what it lacks
        check_picture(options.picture, options.image, options.mask)
        if options.picture.resolve() == output.resolve():
            raise AIAssistError(f"{output} cannot be both the mask and the picture; give one of them another name.")
    if options.propagate < 0:
        raise ContourError(f"--propagate is {options.propagate}; use 0 or more slices.")
    _check_finite("--from", options.start)
    _check_finite("--to", options.target)
    volume = read_volume(options.image)
    check_holds(output, volume.geometry)
    for name, place in (("--from", options.start), ("--to", options.target)):
        _check_inside(name, place, volume)
    mask = MaskPatch.of_mask(
        one_structure(read_labelmap(options.mask, like=volume).voxels, options.mask, options.value)
    )
    session = ContourSession(volume, mask, options.distance)
    axis = across(volume.geometry, options.axis)
    index, end = clicked_voxels([options.start, options.target])[:, axis].tolist()
    before = session.open(axis, index)
    if end != index:
        raise ContourError(
            f"--from lies on the {options.axis} slice {index}, --to on {end}; a vertex stays on its slice."
        )
    start, target = session.plane.to_xy([options.start, options.target])
    if session.press(start) is None:
        raise ContourError(f"The {options.axis} slice {index} holds no outline to pull; choose another point.")
    _check_near(session, start, max(NEAR, 2 * options.distance))
    session.drag(target, options.radius, options.strength)
    edit = session.release()
    slices = [*edit.slices] if edit else []
    if edit and options.propagate:
        more = session.propagate(options.propagate, options.radius, options.strength)
        slices += more.slices if more else ()
    patch = session.result()
    write_volume(output, Volume(patch.over(mask).to_mask(volume.shape), volume.geometry), keep_grid=True)
    if options.picture:
        draw_change(options.picture, session, before, start, target)
    changed = ", ".join(map(str, sorted(slices))) or "none"
    print(f"{output}: {options.axis} slices changed: {changed}.")


def _check_finite(name: str, place: list[float]) -> None:
    if not all(map(isfinite, place)):
        raise ContourError(f"{name} is {','.join(map(str, place))}, which is not a point; use finite indices I,J,K.")


def _check_inside(name: str, place: list[float], volume) -> None:
    if not volume.geometry.contains([place]).all():
        most = ",".join(str(n - 1) for n in volume.shape[::-1])
        raise ContourError(
            f"{name} {','.join(f'{x:g}' for x in place)} lies outside the image, whose indices I,J,K go to {most}."
        )


def _check_near(session, start, most: float) -> None:
    """Refuse a place that is at no vertex: another would be pulled than somebody means."""
    import numpy as np

    ring, vertex = session.nearest(start)
    away = float(np.linalg.norm((session.rings[ring].points[vertex] - start) * session.plane.spacing))
    if away > most:
        raise ContourError(f"--from lies {away:.0f} mm from the nearest outline; give a point at its border.")


def _as_seen(plane) -> tuple[bool, bool]:
    """Whether columns run to the right and rows down as radiologists look: to the patient's left, posterior, feet."""
    ways = []
    for axis in sorted({0, 1, 2} - {plane.axis}, reverse=True):  # columns, then rows
        direction = plane.geometry.direction[:, 2 - axis]
        patient = int(abs(direction).argmax())
        ways.append((direction[patient] > 0) != (patient == 2))
    return ways[0], ways[1]


def draw_change(path: Path, session, before, start, target) -> None:
    """Draw the open slice of a session with its outlines before and after."""
    import numpy as np

    from aiassist.evaluation.pictures import grey_window, pyplot
    from aiassist.files import whole_file
    from aiassist.imaging import finite

    plots = pyplot()
    plane, volume = session.plane, session.volume
    grey, (width, height) = finite(plane.of(volume.voxels)), plane.spacing
    low, high = grey_window(volume, volume.geometry.whole)
    rings = [(ring, "#ffd040", "--") for ring in before] + [(ring, "#ff4040", "-") for ring in session.rings]
    corners = np.concatenate([ring.points for ring, _, _ in rings])
    margin = 15 / plane.spacing
    figure, axis = plots.subplots(figsize=(6.4, 6.4), facecolor="black", layout="constrained")
    axis.imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="bilinear", aspect=height / width)
    for ring, colour, style in rings:
        closed = np.vstack([ring.points, ring.points[:1]])
        axis.plot(*closed.T, color=colour, linestyle=style, linewidth=1.4)
    axis.annotate("", target, start, arrowprops={"arrowstyle": "->", "color": "#40a0ff", "linewidth": 1.6})
    low, high = corners.min(axis=0) - margin, corners.max(axis=0) + margin
    across, down = _as_seen(plane)
    axis.set_xlim(*((low[0], high[0]) if across else (high[0], low[0])))
    axis.set_ylim(*((high[1], low[1]) if down else (low[1], high[1])))
    axis.set_axis_off()
    names = (("before", "#ffd040", "--"), ("after", "#ff4040", "-"))
    handles = [plots.Line2D([], [], color=c, linestyle=s, label=n) for n, c, s in names]
    axis.legend(handles=handles, loc="lower right", frameon=False, labelcolor="white")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="black")
    plots.close(figure)
