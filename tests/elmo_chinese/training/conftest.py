"""What the tests of training share."""

from elmo_chinese.console import shown

import pytest


@pytest.fixture(autouse=True)
def printed_as_in_a_command():
    """What is logged is printed, so that tests find it with capsys."""
    with shown():
        yield
