"""What a resource allocator must do when things go wrong at the worst moment, scenario by scenario.

The ids (S01 .. S103) are those of the list of scenarios that was drawn from the history of Phabricator's Drydock; each
test file says which of them it covers.
"""
