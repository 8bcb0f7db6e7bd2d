"""The command line: `mobclip`.

Belongs here: reading options, progress and tables for people, JSON for programs. Does not belong here: what the
commands do (see `materialize`, `status` and `mobclip_core`).
"""

import gc
import os
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from mobclip_assets.cli_serving import COMMANDS, print_json
from mobclip_core.errors import MobclipError
from mobclip_core.profile import PROFILES_DIR, load_profile
from mobclip_core.store import TableRef

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A country's places as vectors: build and inspect.")
console = Console(stderr=True)
out = Console()

ProfileOption = Annotated[str, typer.Option("--profile", "-p", help="Profile name, or path of its YAML file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def _readable_errors() -> Any:
    """Errors meant for people are shown without a stack trace."""
    try:
        yield
    except MobclipError as error:
        console.print(f"[bold red]error[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mobclip"):
            raise
        console.print(
            f"[bold red]error[/] this command builds vectors and needs {error.name}: pip install 'mobclip\\[build]'",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(2) from None


@contextmanager
def _without_collection() -> Any:
    """For a command of seconds that keeps what it makes: looking for garbage would be a third of its time."""
    gc.disable()
    try:
        yield
    finally:
        # the interpreter looks through all of it once more at its end
        gc.freeze()
        gc.enable()


for name, command in COMMANDS.items():
    app.command(name)(_readable_errors()(command))


@app.command()
@_readable_errors()
def materialize(
    profile: ProfileOption = "demo",
    select: Annotated[
        list[str] | None, typer.Option(help="Assets in Dagster's selection syntax; all if not given. Repeatable.")
    ] = None,
    region: Annotated[list[str] | None, typer.Option(help="Regions; all if not given. Repeatable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make again what stands, too.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="What differs from before is meant: compare with it from now on.")
    ] = False,
) -> None:
    """Make what is missing, stale or failed, stage by stage, region by region.

    What stands (same code, settings, files and upstream data, checks passed) is kept, so that an interrupted command
    goes on where it was. A region that fails does not stop the others.
    """
    failures = _materialize(profile, select or [], region or [], force=force, accept=accept)
    if failures:
        raise typer.Exit(1)


def _materialize(profile: str, select: Sequence[str], region: Sequence[str], *, force: bool, accept: bool) -> int:
    import dagster as dg

    from mobclip_assets import materialize as runs
    from mobclip_assets.build import build_defs
    from mobclip_assets.instance import enter_instance, instance_home
    from mobclip_assets.standing import Standing, observe_sources
    from mobclip_core.deployment import Deployment

    enter_instance(profile)
    definitions = build_defs(profile)
    graph = definitions.resolve_asset_graph()
    job = definitions.resolve_implicit_global_asset_job_def()
    regions = _wanted_regions(profile, region)
    stages = runs.plan_stages(graph, runs.wanted_assets(graph, select))
    began = time.monotonic()
    failures: list[runs.Failure] = []
    made = 0
    with dg.DagsterInstance.get() as instance, runs.only_command(instance, instance_home(profile)), _progress() as bars:
        deployment = Deployment.open(profile)
        observe_sources(instance, deployment.profile)
        bar = bars.add_task("", total=sum(len(regions) if stage.regional else 1 for stage in stages))

        def started(name: str | None) -> None:
            nonlocal made
            made += 1
            what = f"{name or 'all regions'}: {stage.title}"
            bars.update(bar, description=what)
            if not console.is_terminal:
                # a log shows no bar: it gets a line for each run
                task = bars.tasks[bar]
                seconds = time.monotonic() - began
                console.print(
                    f"{task.completed:.0f}/{task.total:.0f} {seconds:.0f} s {what}", highlight=False, soft_wrap=True
                )

        for stage in stages:
            failed = {failure.region for failure in failures}
            if failed and not stage.regional:
                break
            # the records are read anew for each stage: the one before has changed them
            standing = Standing(instance, graph, deployment)

            def unfinished(stage: runs.Stage, name: str | None, now: Standing = standing) -> Sequence[dg.AssetKey]:
                return stage.assets if force else now.unfinished(stage.assets, name)

            wanted = [name for name in regions if name not in failed]
            for failure in runs.run_stage(job, instance, stage, wanted, started, unfinished, accept):
                bars.advance(bar)
                if failure is not None:
                    failures.append(failure)
                    _show_failure(failure)
    if failures:
        names = ", ".join(sorted({failure.region or "all regions" for failure in failures}))
        console.print(
            f"[bold red]failed[/] for {names}; what was there before stands. "
            "Mend the cause and run the same command again.",
            soft_wrap=True,
        )
    else:
        seconds = time.monotonic() - began
        kept = "" if made else "; everything stood already (--force makes it again)"
        console.print(f"[bold green]done[/] {profile} in {seconds:.0f} s, {made} runs{kept}", soft_wrap=True)
    return len(failures)


def _show_failure(failure: Any) -> None:
    for message in failure.messages:
        where = failure.region or "all regions"
        console.print(f"[bold red]failed[/] {where}: {message}", highlight=False, soft_wrap=True)


def _wanted_regions(profile: str, region: Sequence[str]) -> list[str]:
    known = load_profile(profile).regions.region_keys
    unknown = sorted(set(region) - set(known))
    if unknown:
        raise MobclipError(f"no region {', '.join(unknown)} in this profile; it has {', '.join(known)}")
    return [key for key in known if not region or key in region]


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@app.command()
@_readable_errors()
@_without_collection()
def status(
    profile: ProfileOption = "demo",
    region: Annotated[list[str] | None, typer.Option(help="Regions; all if not given. Repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is fresh, stale, missing or failed, for each asset and region.

    Many regions in one state are one line; ask for one with --region, or for all with --json.
    """
    import dagster as dg

    from mobclip_assets.build import build_defs
    from mobclip_assets.instance import enter_instance
    from mobclip_assets.status import read_status, summarised
    from mobclip_core.deployment import Deployment

    enter_instance(profile)
    graph = build_defs(profile).resolve_asset_graph()
    with dg.DagsterInstance.get() as instance:
        wanted = set(_wanted_regions(profile, region or []))
        found = read_status(instance, graph, Deployment.open(profile))
        rows = [row for row in found if row.region is None or row.region in wanted]
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    colours = {"fresh": "green", "stale": "yellow", "missing": "dim", "failed": "bold red"}
    table = Table("asset", "region", "state", "rows", "MiB", "materialised (UTC)")
    for row in summarised(rows):
        size = "" if row.bytes is None else f"{row.bytes / 2**20:.2f}"
        state = f"[{colours[row.state]}]{row.state}[/]"
        shown_rows = "" if row.rows is None else f"{row.rows:,}"
        table.add_row(row.asset, row.region or "", state, shown_rows, size, (row.materialized_at or "")[:19])
    out.print(table)


@app.command()
@_readable_errors()
def encoders(profile: ProfileOption = "demo", as_json: JsonOption = False) -> None:
    """Show the encoders that the lake still has, the newest first, and which one is used."""
    from mobclip_core.deployment import Deployment

    store = Deployment.open(profile).store
    used = store.data_version(TableRef("encoder"))
    rows = [
        {"version": version, "written": when.isoformat(timespec="seconds"), "used": version == used}
        for version, when in store.bundle_versions("encoder").items()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("encoder", "written (UTC)", "")
    for row in rows:
        table.add_row(str(row["version"])[:16], str(row["written"])[:19], "used" if row["used"] else "")
    out.print(table)


@app.command("use-encoder")
@_readable_errors()
def use_encoder(
    version: Annotated[str, typer.Argument(help="The beginning of a version that `mobclip encoders` shows.")],
    profile: ProfileOption = "demo",
) -> None:
    """Go back to an earlier encoder; the embeddings are stale until they are made again."""
    import dagster as dg

    from mobclip_assets.instance import enter_instance
    from mobclip_assets.rollback import use_encoder as use
    from mobclip_core.deployment import Deployment

    enter_instance(profile)
    with dg.DagsterInstance.get() as instance:
        whole = use(instance, Deployment.open(profile), version)
    console.print(
        f"encoder {whole[:16]} is used; now `mobclip materialize -p {profile} --select embeddings` and what depends on "
        "it, or the sensor `refresh`, makes the vectors again",
        soft_wrap=True,
    )


@app.command()
@_readable_errors()
def scores(
    profile: ProfileOption = "demo",
    as_json: JsonOption = False,
    few_labels: Annotated[bool, typer.Option(help="Rows learnt from few labels in the JSON, too.")] = False,
) -> None:
    """Show the GeoBench scores: R2 out of sample, mean over seeds, embeddings beside baselines."""
    from rich.markdown import Markdown

    from mobclip_core.deployment import Deployment
    from mobclip_core.evaluation.comparison import (
        NEIGHBOURS,
        few_shot_markdown,
        of_probe,
        rank,
        ranks_markdown,
        without_variants,
    )
    from mobclip_core.evaluation.intervals import mean_intervals, means_markdown
    from mobclip_core.evaluation.scores import RESAMPLED, read_scores, scores_markdown

    rows = read_scores(Deployment.open(profile))
    if as_json:
        asked = [row for row in rows if few_labels or "%" not in row["split"]]
        kept = [{name: value for name, value in row.items() if name != RESAMPLED} for row in asked]
        print_json(kept)
        return
    plain = without_variants(rows)

    def show(title: str, table: str) -> None:
        if table:
            out.print(f"[bold]{profile}[/]: {title}")
            out.print(Markdown(table))

    for split, probe in dict.fromkeys((row["split"], row["probe"]) for row in plain):
        if probe != NEIGHBOURS and "%" not in split:
            title = f"R2 out of sample, {split} split, {probe} probe, mean over seeds"
            show(title, scores_markdown(plain, split, probe, tasks_across=True))
    strictest = next((split for split in ("spatial", "random") if of_probe(rows, split)), "spatial")
    chosen = of_probe(rows, strictest)
    show(f"means over tasks, {strictest} split, ridge probe", means_markdown(mean_intervals(chosen)) if chosen else "")
    if (ranks := rank(of_probe(plain, strictest))) is not None:
        show(f"ranks over tasks, {strictest} split, ridge probe", ranks_markdown(ranks))
    show("R2 from few labels, random split, ridge probe, mean over tasks and seeds", few_shot_markdown(plain))
    out.print("* an input of the method overlaps with the label", highlight=False)


@app.command()
@_readable_errors()
def report(profile: ProfileOption = "demo") -> None:
    """Write one HTML page with map, scores, ranks and residuals, and print where it is."""
    from mobclip_core.deployment import Deployment
    from mobclip_core.evaluation.report import build_report

    with console.status("drawing"):
        path = build_report(Deployment.open(profile))
    out.print(path, highlight=False, soft_wrap=True)


@app.command("demo-data")
@_readable_errors()
def demo_data(
    folder: Annotated[Path, typer.Option(help="Where the raw files go.")] = PROFILES_DIR.parent / "demo_data",
) -> None:
    """Write the raw files of the demo country (generated; kept if they are there already)."""
    from mobclip_core.demo.generate import ensure_demo

    with console.status("writing the demo country's raw files"):
        made = ensure_demo(folder)
    console.print(f"{'wrote' if made else 'kept'} the demo country's raw files in {folder}")


@app.command()
@_readable_errors()
def ui(
    profile: ProfileOption = "demo",
    port: Annotated[int, typer.Option(help="Port of the web page.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI of a profile: web server and daemon, until interrupted."""
    from mobclip_assets.instance import enter_instance

    enter_instance(profile)
    console.print(f"[bold]http://{host}:{port}[/] serves {profile}; stop with Ctrl+C")
    dagster = Path(sys.executable).with_name("dagster")
    workspace = PROFILES_DIR.parents[1] / "workspace.yaml"
    command = [str(dagster), "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
    os.execv(dagster, command)


if __name__ == "__main__":
    app()
