"""Why a file is as fast as it is: operators against what a core can do."""
