"""Table 5, transfer learning: as it was published, and what was measured of networks that have learned a data set."""

from edgenet.images.official import LAYOUTS
from edgenet.models.weights import PACKAGES
from edgenet.paper import published
from edgenet.paper.cells import COMPUTED, Cell, Table, quoted, top1
from edgenet.paper.networks import published_name
from edgenet.paper.plan import paper_of
from edgenet.report.formatting import MISSING
from edgenet.results import Results
from edgenet.results.records import Transfer

# Those that have weights to begin with, and the smallest of the paper's own.
NETWORKS = (*PACKAGES, "efficientnet-b0")


def table5(results: Results) -> Table:
    """Table 5 as it was published."""
    columns = ("Data set", "EfficientNet", "Top-1", "Parameters", "Best other", "Its top-1", "Its parameters")
    rows = tuple(
        (Cell(r["dataset"], note=f"{r['classes']} classes"), Cell(f"EfficientNet-{r['efficientnet']}"),
         quoted(r["top1_percent"], "%"), quoted(r["params_millions"], "M"), Cell(r["best_reported"]),
         quoted(r["best_top1_percent"], "%"), quoted(r["best_params_millions"], "M"))
        for r in published.printed("5")
    )  # fmt: skip
    dataset = paper_of(results).dataset
    how = (
        f"What was measured of {LAYOUTS[dataset].title} stands in the table before it."
        if dataset
        else "A row is measured by --images flowers102:DIR, say, and --trained OUT of `edgenet finetune`."
    )
    return Table("table5", "Table 5: transfer learning", f"Quoted whole. {how}", columns, rows)


def transferred(results: Results) -> Table:
    """The row of one data set measured: networks with their accuracy, beside the published; without one, no rows."""
    paper = paper_of(results)
    columns = ("Network", "Top-1", "Parameters", "Taught by", "Input")
    if not paper.dataset:
        return Table("transfer", "Table 5, measured", "", columns, ())
    title, row = LAYOUTS[paper.dataset].title, _published(paper.dataset)
    rows = [
        cells
        for name in NETWORKS
        for cells in [_measured(results, t) for t in paper.transfers if t.network == name] or [_missing(name)]
    ]
    rows += [_measured(results, t) for t in paper.transfers if t.network not in NETWORKS]
    gone = Cell(MISSING)
    taught = Cell(f"{int(row['train_size']):,} pictures", "quoted", float(row["train_size"]))
    rows.append((
        Cell(f"EfficientNet-{row['efficientnet']}", note="the paper"), quoted(row["top1_percent"], "%"),
        quoted(row["params_millions"], "M"), taught, gone,
    ))  # fmt: skip
    rows.append((
        Cell(row["best_reported"], note="the best other, as the paper has it"), quoted(row["best_top1_percent"], "%"),
        quoted(row["best_params_millions"], "M"), gone, gone,
    ))  # fmt: skip
    lead = (
        f"Networks that have learned {title}, measured on its official test pictures that are new to them: accuracy "
        "with its 95 % interval."
    )
    return Table("transfer", f"Table 5, measured: {title}", lead, columns, tuple(rows), _notes(results))


def best_transferred(results: Results) -> list[str]:
    """Return in a sentence the highest measured accuracy beside the paper's; nothing where none was measured."""
    paper = paper_of(results)
    by_file = {e.artifact: e for e in results.evaluations if e.top1 is not None}
    found = [(by_file[t.artifact], t) for t in paper.transfers if t.artifact in by_file]
    if not found:
        return []
    best, network = max(found, key=lambda pair: pair[0].top1 or 0)
    row = _published(paper.dataset)
    return [
        f"{_name(results, network)} is right on {(best.top1 or 0) * 100:.1f} % of {best.n_labelled:,} test pictures of "
        f"{row['dataset']} "
        f"(the paper's {row['efficientnet']}: {row['top1_percent']} %)"
    ]


def not_transferred(results: Results) -> tuple[str, str]:
    """Return what of table 5 was not measured, and why."""
    dataset = paper_of(results).dataset if paper_of(results).transfers else ""
    if not dataset:
        return "Table 5, transfer learning", "quoted whole: eight data sets and weights pretrained on ImageNet"
    title = LAYOUTS[dataset].title
    return (
        f"Table 5 but for {title}",
        "quoted: seven other data sets; and B1 to B7, whose trained weights are not at hand",
    )


def _published(dataset: str) -> dict[str, str]:
    """Return what the paper prints of a data set."""
    return next(r for r in published.printed("5") if r["dataset"] == LAYOUTS[dataset].title)


def _measured(results: Results, t: Transfer) -> tuple[Cell, ...]:
    accuracy = top1(results, t.artifact)
    if accuracy.value is None:
        why = next((f.why for f in results.failures if f.artifact == t.artifact), "")
        accuracy = Cell("not measured", note=why)
    millions = t.parameters / 1e6
    taught = Cell(f"{t.taught:,} pictures", COMPUTED, t.taught) if t.taught is not None else Cell("not known")
    precision = next((a.precision for a in results.artifacts if a.id == t.artifact), "")
    return (
        Cell(_name(results, t), note=precision), accuracy, Cell(f"{millions:.2f} M", COMPUTED, millions), taught,
        Cell(f"{t.resolution_px} px", COMPUTED, t.resolution_px),
    )  # fmt: skip


def _name(results: Results, t: Transfer) -> str:
    return published_name(t.network) if t.network else _model(results, t)


def _model(results: Results, t: Transfer) -> str:
    return next((a.model for a in results.artifacts if a.id == t.artifact), t.artifact)


def _missing(name: str) -> tuple[Cell, ...]:
    """Return the row of a network of which no trained file was given."""
    why = "to be finetuned" if name in PACKAGES else "no weights of it come with edgenet"
    gone = Cell(MISSING)
    return Cell(published_name(name)), Cell("not measured", note=why), gone, gone, gone


def _notes(results: Results) -> tuple[str, ...]:
    """Return what has to be known to compare with the paper."""
    paper = paper_of(results)
    row = _published(paper.dataset)
    notes = [
        f"The paper prints EfficientNet-{row['efficientnet']} for {row['dataset']}: a larger network than any measured "
        "here, with a training of its own.",
        "Parameters: trained ones, batch norm's scale and shift among them; of a network that is none of the zoo's, "
        "those that its file holds.",
    ]
    if {*NETWORKS} - {t.network for t in paper.transfers}:
        notes.append(
            "What was not measured takes a training first: `edgenet finetune "
            f"{NETWORKS[0]} --images {paper.dataset}:DIR --out OUT`, say, and then --trained OUT here; "
            "or --trained FILE, a model of these classes that you have."
        )
    for t in paper.transfers:
        e = next((e for e in results.evaluations if e.artifact == t.artifact), None)
        name, all_train, all_test = _name(results, t), int(row["train_size"]), int(row["test_size"])
        said = []
        if e is not None and e.n_labelled < all_test:
            said.append(f"measured on {e.n_labelled:,} of the {all_test:,} official test pictures")
        if e is not None and e.n_images < t.test_pictures:
            seen = t.test_pictures - e.n_images
            said.append(f"{seen:,} test pictures are, or look like, some that taught it and were left out")
        if t.taught is None:
            said.append(
                "its file does not say which pictures taught it: whether the test pictures are new to it is not known"
            )
        elif t.taught != all_train:
            said.append(f"taught by {t.taught:,} pictures, where the paper's had {all_train:,}")
        if said:
            notes.append(f"{name}: {'; '.join(said)}.")
    return tuple(dict.fromkeys(notes))
