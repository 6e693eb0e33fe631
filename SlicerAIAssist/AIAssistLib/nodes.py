"""Nodes of the scene."""

from __future__ import annotations


def remove_with_display(node) -> None:
    """Remove a node from the scene, with how it is shown and stored, which nothing else uses."""
    scene = node.GetScene()
    others = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    others += [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
    for one in (node, *others):
        if one is not None:
            scene.RemoveNode(one)
