"""`.ui` files make stand-ins and connect them."""

from __future__ import annotations

import pytest

UI = """<ui version="4.0"><class>Panel</class>
<widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="rows">
 <item><widget class="ctkCollapsibleButton" name="inputs">
  <property name="text"><string>Inputs</string></property>
  <layout class="QFormLayout" name="form">
   <item row="0" column="1"><widget class="qMRMLNodeComboBox" name="volumeSelector">
    <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
    <property name="noneEnabled"><bool>true</bool></property>
    <property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property></widget></item>
   <item row="1" column="1"><widget class="ctkSliderWidget" name="radius">
    <property name="maximum"><double>50</double></property><property name="value"><double>7.5</double></property>
   </widget></item>
   <item row="2" column="1"><widget class="ctkPathLineEdit" name="folder">
    <property name="filters"><set>ctkPathLineEdit::Dirs|ctkPathLineEdit::Hidden</set></property></widget></item>
  </layout></widget></item>
 <item><widget class="ctkCollapsibleButton" name="advanced">
  <property name="collapsed"><bool>true</bool></property>
  <layout class="QVBoxLayout" name="more"><item><widget class="QPushButton" name="apply"/></item></layout>
 </widget></item>
</layout></widget>
<connections><connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
 <receiver>volumeSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections>
</ui>"""


@pytest.fixture
def panel(tmp_path, slicer):
    """The widget of the `.ui` file above, loaded as a module does it."""
    path = tmp_path / "Panel.ui"
    path.write_text(UI)
    return slicer.util.loadUI(str(path))


def test_ui_files_make_stand_ins_with_their_properties(panel, slicer, ctk):
    ui = slicer.util.childWidgetVariables(panel)
    assert isinstance(panel, slicer.qMRMLWidget)
    assert isinstance(ui.radius, ctk.ctkSliderWidget)
    assert (ui.inputs.text, ui.inputs.collapsed, ui.advanced.collapsed) == ("Inputs", False, True)
    assert (ui.radius.maximum, ui.radius.value) == (50.0, 7.5)
    assert ui.folder.filters == ctk.ctkPathLineEdit.Dirs | ctk.ctkPathLineEdit.Hidden
    assert ui.volumeSelector.nodeTypes == ["vtkMRMLScalarVolumeNode"]
    assert ui.volumeSelector.SlicerParameterName == "inputVolume"


def test_ui_files_connect_the_scene(panel, slicer, scene):
    panel.setMRMLScene(scene)
    selector = slicer.util.childWidgetVariables(panel).volumeSelector
    assert selector.mrmlScene() is scene
    assert selector.nodeCount() == 1


def test_children_are_no_attributes_of_the_loaded_widget(panel):
    with pytest.raises(AttributeError, match="'radius'"):
        _ = panel.radius


def test_ui_files_load_through_the_loader_too(qt, ctk, tmp_path):
    path = tmp_path / "Plain.ui"
    path.write_text('<ui version="4.0"><class>P</class><widget class="ctkCheckBox" name="P"/></ui>')
    file = qt.QFile(str(path))
    assert file.open(qt.QFile.ReadOnly)
    assert isinstance(qt.QUiLoader().load(file), ctk.ctkCheckBox)


def test_a_missing_ui_file_is_a_runtime_error(slicer, tmp_path):
    with pytest.raises(RuntimeError, match=r"file not found .*None\.ui"):
        slicer.util.loadUI(str(tmp_path / "None.ui"))
