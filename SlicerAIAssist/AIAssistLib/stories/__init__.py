"""The stories of the tutorial, which run in any Slicer: by *Reload and Test* in the desktop, and headless in our tests.

Each story is a function of a `Stage`; it says by its name what is so, and fails with a sentence when it is not. What
it asserts are voxels.
"""

from AIAssistLib.stories.contouring import a_wrong_stretch_is_pulled_right_and_the_rest_stays
from AIAssistLib.stories.keeping import a_scene_is_saved_closed_and_opened_and_the_work_goes_on
from AIAssistLib.stories.losing import (
    the_process_is_lost_in_the_middle_of_a_save_and_comes_back,
    what_computes_is_lost_in_the_middle_of_a_click_and_comes_back,
)
from AIAssistLib.stories.marking import (
    a_click_is_cancelled_in_the_middle,
    a_locked_structure_stays_as_it_is,
    a_point_is_dragged_and_the_segment_follows,
    accepted_masks_are_undone_and_redone,
    six_clicks_in_three_views_give_the_organ,
)
from AIAssistLib.stories.stage import Stage, StoryError

#: What is so wherever the models run.
EVERYWHERE = (
    six_clicks_in_three_views_give_the_organ,
    a_point_is_dragged_and_the_segment_follows,
    a_wrong_stretch_is_pulled_right_and_the_rest_stays,
    accepted_masks_are_undone_and_redone,
    a_click_is_cancelled_in_the_middle,
    a_locked_structure_stays_as_it_is,
)
#: Leaves ground truth behind.
SAVING = (a_scene_is_saved_closed_and_opened_and_the_work_goes_on,)
#: What is so where the models run in another process, and where they run in Slicer's own, which has one beside it.
ELSEWHERE = (what_computes_is_lost_in_the_middle_of_a_click_and_comes_back,)
IN_SLICER = (the_process_is_lost_in_the_middle_of_a_save_and_comes_back,)

__all__ = ["ELSEWHERE", "EVERYWHERE", "IN_SLICER", "SAVING", "Stage", "StoryError"]
