"""``facecnn forget``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import megabytes
from facecnn.cli.options import ComputeOptions, FormatOption, ModelOptions, NewNameOption
from facecnn.errors import shown
from facecnn.jobs.stderr import StderrConsole, paragraph
from facecnn.reports.findings import counted

if TYPE_CHECKING:
    from facecnn.jobs.forget import Plan


@common.command
def forget(
    console: StderrConsole,
    *,
    person: Annotated[str, typer.Argument(help="One of the model's people.")],
    model: ModelOptions,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    name: NewNameOption = None,
    compute: ComputeOptions,
    format: FormatOption = "text",
) -> None:
    """Make a run without a person, then delete everything kept about them.

    This deletes the runs under --out that know the person, with their reports and thumbnails, and the person's crops,
    found faces and embeddings in the caches. It shows which, and asks. Your own photos stay, and so does what facecnn
    can't know of: runs in other folders, copies of models, and whatever sort, group, data crop or predict wrote. A
    model made with -c pretrained needs no training for this; any other is retrained on the others' photos.
    """
    from facecnn.jobs.forget import forget as job
    from facecnn.jobs.forget import plan
    from facecnn.jobs.training.options import TrainOptions

    found = plan(person, model.find(console), model.out)
    if yes:
        for line in _lost(found):
            console.warning(line)
    elif not _agreed(found):
        common.print_result({"run": None, "person": person, "removed": None}, format, lambda _: "Nothing deleted.")
        return
    new = TrainOptions(out=model.out, name=name, device=compute.device, threads=compute.threads)
    common.print_result(job(found, new, console), format, _describe)


def _listed(found: Plan) -> list[str]:
    cached = found.cached
    lines = [f"Forgetting {shown(found.person)} deletes:"]
    lines += [f"  {shown(run.path)}, a run that knows them" for run in found.runs]
    lines.append(
        f"  from the caches: {counted(cached.crops, 'crop')}, found faces of {counted(cached.searched, 'photo')}, and "
        "embeddings"
    )
    if found.originals is not None:
        lines.append(f"What stays: {shown(found.originals)}, your own photos")
    return [*lines, *_lost(found)]


def _lost(found: Plan) -> list[str]:
    """Who else is forgotten, unasked."""
    from facecnn.photos.folder import some

    if not found.lost:
        return []
    names = some(list(map(shown, found.lost)), 6)
    return [f"Only these runs know {names}: the new run won't, unless you give one that does with -m"]


def _agreed(found: Plan) -> bool:
    typer.echo("\n".join(map(paragraph, _listed(found))), err=True)
    question = f"Make a run without them and delete this, {megabytes(found.bytes)} of runs?"
    return common.agreed("forget", len(found.runs), question)


def _describe(result: dict[str, Any]) -> str:
    removed = result["removed"]
    lines = [
        f"Forgot {shown(result['person'])}. Deleted: {counted(len(removed['runs']), 'run')}, "
        f"{counted(removed['crops'], 'crop')}, found faces of {counted(removed['faces'], 'photo')}, "
        f"{counted(removed['embeddings'], 'embedding')}."
    ]
    if result["originals"] is not None:
        lines.append(f"Your own photos stay: {shown(result['originals'])}")
    return "\n".join([*lines, f"Run: {shown(result['run'])}"])
