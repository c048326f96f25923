"""What the tests of faults share with those of hostile input: a command that must be refused in a line, in time."""

from hostile.conftest import _in_time as _in_time
from hostile.conftest import refused as refused
