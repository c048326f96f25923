"""The work of `edgenet history`: add runs, list them, write the page."""

from pathlib import Path

from edgenet.history import store
from edgenet.history.options import HistoryJob
from edgenet.history.page import write_page
from edgenet.history.trends import Done, past_runs, selected
from edgenet.options import Progress


def history(database: Path, job: HistoryJob, progress: Progress = lambda *_: None) -> Done:
    """Do what was asked for; runs are added first.

    Raises:
        InputError: the database is not edgenet's, newer, damaged or not there; what is added is no run; a name that
            was asked for fits nothing; the page cannot be written.
    """
    added = tuple(store.add(database, [Path(out) for out in job.add])) if job.add else ()
    with store.reading_history(database) as opened:
        every = past_runs(opened, job, progress)
    runs = selected(every, job)
    page = write_page(runs, job, database) if job.page is not None else None
    return Done(added, runs, page)
