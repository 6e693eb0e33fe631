"""Structures are known by their everyday names and carry SNOMED CT codes that DICOM agrees with."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from pydicom.sr._concepts_dict import concepts

from aiassist.errors import AIAssistError
from aiassist.imaging import Code, Label, describe_structure
from aiassist.imaging.labels import ALTERED, ANATOMY, LEFT, RIGHT, TISSUE, category_of, terminology_entry

STRUCTURES = json.loads(files("aiassist.imaging").joinpath("terminology.json").read_text(encoding="utf8"))["structures"]
#: SNOMED CT of the DICOM standard: code to its meanings.
SNOMED: dict[str, set[str]] = {}
for codes in concepts["SCT"].values():
    for code, (meaning, _) in codes.items():
        SNOMED.setdefault(code, set()).add(meaning.casefold().removesuffix(" (body structure)"))


@pytest.mark.parametrize("entry", STRUCTURES, ids=lambda entry: entry["names"][0])
def test_code_and_meaning_are_those_of_the_dicom_standard(entry):
    assert entry["meaning"].casefold() in SNOMED[entry["code"]]


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_sides_are_those_of_the_dicom_standard(side):
    assert side.meaning.casefold() in SNOMED[side.value]


@pytest.mark.parametrize(
    ("name", "category"),
    [
        *((name, ALTERED) for name in ("Tumour", "cyst", "mass", "lung nodule", "lesion_2", "metastasis")),
        *((name, ANATOMY) for name in ("spleen", "kidney_right", "lymph node")),
        ("another cloud", TISSUE),
    ],
)
def test_findings_are_altered_structures_and_the_rest_anatomy(name, category):
    assert category.value in SNOMED
    label = describe_structure(name)
    assert category_of(label.code) == category
    assert terminology_entry(label).split("~")[1] == f"SCT^{category.value}^{category.meaning}"


def test_no_name_stands_twice_and_colours_are_bytes():
    names = [name for entry in STRUCTURES for name in entry["names"]]
    assert len(names) == len(set(names))
    assert all(len(e["colour"]) == 3 and all(0 <= c <= 255 for c in e["colour"]) for e in STRUCTURES)


def test_every_name_of_the_table_is_found_however_it_is_written():
    for entry in STRUCTURES:
        for name in entry["names"]:
            for spelling in (name, name.upper(), name.replace(" ", "_")):
                assert describe_structure(spelling).code.value == entry["code"], spelling


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("kidney_right", "64033007", RIGHT),
        ("Right Kidney", "64033007", RIGHT),
        ("left_kidney", "64033007", LEFT),
        ("rib_left_7", "113197003", LEFT),
        ("vertebrae_T12", "51282000", None),
        ("spleen", "78961009", None),
        ("left ventricle", "87878005", None),
    ],
)
def test_side_and_number_are_read_from_the_name(name, code, side):
    label = describe_structure(name, 4)
    assert (label.name, label.value, label.code.value, label.side) == (name, 4, code, side)


def test_an_unknown_name_keeps_its_colour_and_has_no_code():
    first, again = describe_structure("Grüne Wolke links"), describe_structure("Grüne Wolke links")
    assert first.code is None
    assert first.colour == again.colour != describe_structure("another cloud").colour


@pytest.mark.parametrize(
    ("name", "value", "named"), [("", 1, "name"), ("  ", 1, "name"), ("a", 0, "0"), ("a", 65536, "65536")]
)
def test_impossible_labels_are_refused_by_value(name, value, named):
    with pytest.raises(AIAssistError, match=named):
        Label(name, value)


def test_a_code_is_snomed_unless_said_otherwise():
    assert Code("78961009", "Spleen").scheme == "SCT"
