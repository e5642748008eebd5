"""Commands that queue a search: on a Ray cluster, or as a Slurm job."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.app import TrackingUri, app
from hpsearch.cli.completion import complete_spaces
from hpsearch.cli.jobs import CLUSTER_PANEL, Address, require_address
from hpsearch.cli.old_words import rewrite_old_words
from hpsearch.cli.options import drop_none, to_cli_args
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import CLUSTER_HOME, DEFAULT_HOME, HOME_ENV
from hpsearch.errors import UserError
from hpsearch.locations import remote_address
from hpsearch.untrusted import command_line

if TYPE_CHECKING:
    from hpsearch.execution.slurm_script import SlurmOptions
    from hpsearch.search.resources import Resources
    from hpsearch.search.search import Search

ClusterHome = Annotated[
    str,
    typer.Option(
        help="Home on the cluster: a folder, better on a disk that all nodes see, or "
        "s3://BUCKET/PREFIX."
    ),
]
SLURM_PANEL = "Slurm"
STORE_TIMEOUT_S = 20.0
"""Seconds that an object store has to answer before a job is submitted."""


def _slurm_option(help: str, **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=SLURM_PANEL, **more)


@app.command(
    rich_help_panel=CLUSTER_PANEL,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def submit(
    context: typer.Context,
    space: Annotated[
        Path,
        typer.Argument(help="A Python file that exports SEARCH.", autocompletion=complete_spaces),
    ],
    address: Address = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the search (default: that of the file).")
    ] = None,
    tracking_uri: TrackingUri = None,
    home: ClusterHome = CLUSTER_HOME,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Write a Slurm job and submit it with sbatch.")
    ] = False,
    account: Annotated[str | None, _slurm_option("Account of the job.")] = None,
    partition: Annotated[str | None, _slurm_option("Partition of the job.")] = None,
    qos: Annotated[str | None, _slurm_option("Quality of service of the job.")] = None,
    time: Annotated[
        str | None, _slurm_option("Time limit of the job, 12:00:00; it then queues itself again.")
    ] = None,
    constraint: Annotated[str | None, _slurm_option("Features of its nodes: a100|h100.")] = None,
    nodes: Annotated[int, _slurm_option("Nodes of the job.", min=1)] = 1,
    cpus_per_node: Annotated[int, _slurm_option("CPUs of each node.", min=1)] = 2,
    mem: Annotated[str | None, _slurm_option("Memory of each node: 32G.")] = None,
    gres: Annotated[str | None, _slurm_option("Devices of each node: gpu:4.")] = None,
    module: Annotated[list[str] | None, _slurm_option("Environment module to load.")] = None,
    env: Annotated[list[str] | None, _slurm_option("Variable of the job: NAME=VALUE.")] = None,
    image: Annotated[str | None, _slurm_option("Apptainer image that holds hpsearch.")] = None,
    script: Annotated[bool, _slurm_option("Print the job and submit nothing.")] = False,
) -> None:
    """Queue a search on a Ray cluster or Slurm; other options are those of hpsearch search.

    Example: hpsearch submit search_spaces/full.py --address http://HEAD:8265 --trials 200
    """
    from hpsearch.search.overrides import parse_overrides, with_overrides
    from hpsearch.search.space_file import imported_modules, load_search
    from hpsearch.untrusted import check_name, name_from

    stated, modules = load_search(space), imported_modules()  # before Ray is imported

    from hpsearch.execution.job_checks import check_data
    from hpsearch.execution.slurm_script import SlurmOptions

    chosen = check_name(name_from(space.stem) if name is None else name, "a search")
    options = [*to_cli_args(tracking_uri=tracking_uri), *context.args]
    words = [space.name, *options]
    asked = _check_search_arguments(context, ["search", *words])
    stated = with_overrides(stated, parse_overrides(asked["overrides"] or []))
    stated.validate_space()
    modules = {**modules, **imported_modules()}  # with those of objects drawn just now
    check_data(asked["data"] or stated.data)
    if slurm:
        job = SlurmOptions(
            account=account, partition=partition, qos=qos, time=time, constraint=constraint,
            nodes=nodes, cpus=cpus_per_node, mem=mem, gres=gres, modules=module or (),
            env=env or (), image=_image_address(image),
        )  # fmt: skip
        files = {space.name: space, **modules}
        _submit_to_slurm(chosen, words, job, home=home, files=files, only_print=script)
        return

    from hpsearch.execution.job_client import JobClient

    address = require_address(address)
    server = JobClient(address)
    server.check_versions()
    if not asked["wait_for_nodes"]:
        server.check_capacity(_requested_resources(stated, asked), asked["max_concurrent_trials"])
    arguments = ["search", space.name, "--name", chosen, "--address", "auto", *options]
    server.submit(chosen, arguments, home=home, space=space, modules=modules)
    _print_submitted(chosen, address, ("--address", address))


def _submit_to_slurm(
    name: str,
    words: list[str],
    options: "SlurmOptions",
    *,
    home: str,
    files: dict[str, Path],
    only_print: bool,
) -> None:
    from hpsearch.execution.slurm import SlurmClient, slurm_words
    from hpsearch.execution.slurm_script import batch_script

    if home == CLUSTER_HOME:  # where `status --slurm` looks as well
        home = os.environ.get(HOME_ENV) or home
    remote = remote_address(home)
    if remote is None and not home.startswith("~/"):  # the job's working folder is another
        home = str(Path(home).absolute())
    home = remote or home
    text = batch_script(name, words, options=options, home=home, files=files)
    if only_print:
        out.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    if remote is not None:
        _check_store(remote)
    number = SlurmClient(home).submit(name, text)
    _print_submitted(name, f"Slurm as job {number}", slurm_words(home))


def _image_address(image: str | None) -> str | None:
    """Absolute path of an image, since the job runs in another folder; an address as it is."""
    return image if image is None or "://" in image else str(Path(image).expanduser().absolute())


def _check_store(address: str) -> None:
    """Check that an object store answers, before a job waits for its turn.

    Raises:
        UserError: if it does not, or refuses.
    """
    from hpsearch.object_storage.object_store import ObjectStore

    ObjectStore(address, retry_for_s=STORE_TIMEOUT_S).names("snapshots")


def _check_search_arguments(context: typer.Context, arguments: list[str]) -> dict[str, Any]:
    """Check the arguments of ``hpsearch search`` before the job is submitted."""
    commands: Any = context.find_root().command
    words = ["--home", str(DEFAULT_HOME), *rewrite_old_words("search", arguments[1:])]
    parsed = commands.get_command(context, "search").make_context(
        "search", words, parent=context.parent
    )
    return parsed.params


def _requested_resources(stated: "Search", asked: dict[str, Any]) -> "Resources":
    from hpsearch.search.resources import Resources

    wanted = drop_none(
        cpus=asked["cpus_per_trial"], gpus=asked["gpus_per_trial"],
        tpus=asked["tpus_per_trial"], device=asked["device"],
    )  # fmt: skip
    found = Resources.model_validate({**stated.resources.model_dump(), **wanted})
    return found.with_default_device(stated.compute.device)


def submit_resume(name: str, address: str, home: str | None, options: list[str]) -> None:
    """Queue the resumption of a search, in ``home`` if the search is new to this cluster."""
    from hpsearch.execution.job_client import JobClient
    from hpsearch.untrusted import check_name

    check_name(name, "a search")
    server = JobClient(address)
    known = {job.search: job.home for job in server.jobs()}
    if name not in known and home is None:
        raise UserError(
            f"{address} has no search {name!r}; give the home of its folder there with --home"
        )
    server.check_versions()
    # wherever it started, it resumes on the cluster that it is submitted to
    arguments = ["resume", name, "--address", "auto", *options]
    server.submit(name, arguments, home=known.get(name) or home or "")
    _print_submitted(name, address, ("--address", address))


def resume_on_slurm(name: str, home: Path, options: list[str]) -> None:
    """Submit the Slurm job of a search again, which resumes what it finds in the home."""
    from hpsearch.execution.slurm import SlurmClient, slurm_words

    given = CLUSTER_HOME if home == DEFAULT_HOME else remote_address(home) or str(home.absolute())
    number = SlurmClient(given).resume(name, options)
    _print_submitted(name, f"Slurm as job {number}", slurm_words(given))


def _print_submitted(name: str, where: str, options: tuple[str, ...]) -> None:
    print_plain(f"submitted search {name} to {where}")
    for words, why in (
        (("status", name), "progress"),
        (("logs", name, "-f"), "log output"),
        (("stop", name), "save all trials and stop"),
    ):
        print_plain(f"  {command_line(*words, *options):<64}  {why}")
