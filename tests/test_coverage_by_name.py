"""Every module has a test file of its name, or an entry here that names the file that tests it."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "hpsearch"
TESTED_IN: dict[str, str | tuple[str, str]] = {
    "config/custom_import.py": "config/test_custom.py",
    "config/custom_source.py": "config/test_custom.py",
    "promotion/retraining_results.py": "promotion/test_retraining_plan.py",
    "tracking/run_table.py": "workflows/test_reproduce.py",
    "training/loss_trace.py": "workflows/test_reproduce.py",
    "workflows/compare_searches.py": "reporting/test_search_comparison.py",
    "workflows/run_lists.py": "workflows/test_reproduce.py",
    "workflows/run_trainer.py": "workflows/test_reproduce.py",
    "cli/app.py": ("end_to_end/test_refusals.py", 'startswith("error: ")'),
    "cli/data.py": "end_to_end/test_data_commands.py",
    "cli/jobs.py": "security/test_submit.py",
    "cli/mlflow_ui.py": ("end_to_end/test_mlflow_ui.py", 'begin("ui"'),
    "cli/options.py": ("cli/test_help.py", "--split"),
    "cli/registry.py": "end_to_end/test_promote.py",
    "cli/reproduce.py": ("workflows/test_reproduce.py", '"reproduce", "--list"'),
    "cli/results.py": "end_to_end/test_sync.py",
    "cli/search.py": "end_to_end/test_main_job.py",
    "cli/train.py": ("workflows/test_train_trial.py", "--validation-points"),
    "collapse_thresholds.py": ("search/test_objective.py", "val/collapsed"),
    "config/loss_schedules.py": "config/test_trial.py",
    "config/losses.py": "config/test_formatting.py",
    "config/networks.py": "models/test_serialization.py",
    "config/optimizers.py": "config/test_formatting.py",
    "config/regularizers.py": "losses/test_regularizers.py",
    "config/sampling.py": "config/test_trial.py",
    "config/triplets.py": "losses/test_metric_losses.py",
    "console/console_observer.py": ("end_to_end/test_main_job.py", "done.stdout"),
    "console/evaluation_output.py": ("end_to_end/test_evaluate.py", 'home.run_here("evaluate"'),
    "console/output.py": "console/test_runnable.py",
    "console/progress_bars.py": ("end_to_end/test_data_commands.py", '"data", "import"'),
    "console/promotion_output.py": ("end_to_end/test_promote.py", "Retrained: val/mAP"),
    "console/search_output.py": "search/test_search_context.py",
    "data/affine_jitter.py": "data/test_photo_synthesis.py",
    "data/arrow_header.py": "data/test_patch_store.py",
    "data/arrow_reader.py": "data/test_variable_views.py",
    "data/arrow_writer.py": "data/test_patch_store.py",
    "data/data_sources.py": "data/test_archives.py",
    "data/images.py": ("data/test_photo_folder.py", "cannot be decoded"),
    "data/photo_keypoints.py": "data/test_photo_synthesis.py",
    "evaluation/descriptor_table.py": "evaluation/test_distances.py",
    "evaluation/distractor_pool.py": ("evaluation/test_screens.py", "pool_oracle"),
    "evaluation/matching.py": "evaluation/test_protocol.py",
    "evaluation/neighbor_screens.py": "evaluation/test_screens.py",
    "evaluation/retrieval.py": "evaluation/test_protocol.py",
    "evaluation/scores.py": "evaluation/test_bootstrap.py",
    "evaluation/task_io.py": "evaluation/test_tasks.py",
    "evaluation/verification.py": "evaluation/test_distances.py",
    "execution/draining_patches.py": "execution/test_tuner.py",
    "execution/job_checks.py": "execution/test_job_client.py",
    "execution/job_status.py": "execution/test_job_client.py",
    "execution/local_session_patches.py": "security/test_listeners.py",
    "cli/submit.py": ("cluster/test_slurm.py", '"submit"'),
    "execution/slurm.py": "cluster/test_slurm.py",
    "execution/slurm_script.py": "cluster/test_slurm.py",
    "execution/preemption.py": "execution/test_preemption_agent.py",
    "execution/ray_runtime.py": "execution/test_tuner.py",
    "execution/tune_callbacks.py": "execution/test_trial_supervisor.py",
    "execution/worker.py": "execution/test_trial_supervisor.py",
    "execution/worker_messages.py": "execution/test_trial_supervisor.py",
    "losses/build.py": "losses/test_metric_losses.py",
    "models/layers.py": "models/test_descriptors.py",
    "object_storage/commit_log.py": "object_storage/test_mirror.py",
    "object_storage/inbox.py": "object_storage/test_home_session.py",
    "object_storage/lease.py": "object_storage/test_home_session.py",
    "object_storage/mirrored_files.py": "object_storage/test_mirror.py",
    "object_storage/object_store.py": "object_storage/test_s3_server.py",
    "patch_views.py": "data/test_patch_store.py",
    "cli/steering.py": ("workflows/test_steer_search.py", '"note", "far"'),
    "workflows/doctor.py": "workflows/test_steer_search.py",
    "workflows/housekeeping.py": "workflows/test_steer_search.py",
    "search/requests.py": "execution/test_external_trials.py",
    "workflows/loaded_model.py": ("test_python_api.py", "load_model"),
    "workflows/search_handle.py": "execution/test_external_trials.py",
    "workflows/search_plan.py": "workflows/test_dry_run.py",
    "promotion/champion_comparison.py": (
        "promotion/test_registration.py",
        "a_challenger_is_not_displaced",
    ),
    "promotion/ensemble.py": "cli/test_models.py",
    "promotion/model_evaluation.py": ("end_to_end/test_evaluate.py", 'home.run_here("evaluate"'),
    "promotion/promotion_search.py": "security/test_names.py",
    "promotion/score_cache.py": "promotion/test_registration.py",
    "redaction.py": "security/test_redaction.py",
    "reporting/evaluation_report.py": ("end_to_end/test_evaluate.py", 'home.run_here("evaluate"'),
    "reporting/html_tables.py": ("reporting/test_search_report.py", "HTMLParser"),
    "reporting/mlflow_notes.py": "security/test_words.py",
    "reporting/plot_style.py": "reporting/test_search_plots.py",
    "reporting/sample_plots.py": "reporting/test_search_plots.py",
    "reporting/setting_figures.py": "reporting/test_setting_plots.py",
    "reporting/search_figures.py": "reporting/test_search_report.py",
    "rng.py": "data/test_samplers.py",
    "search/search_record.py": "search/test_warm_start.py",
    "search/space_errors.py": "search/test_study.py",
    "search/space_file.py": "search/test_search_context.py",
    "search/study_journal.py": "search/test_study.py",
    "search/study_plots.py": ("end_to_end/test_main_job.py", "optuna.html"),
    "search/workspace.py": "search/test_search_context.py",
    "tracking/mlflow_errors.py": "tracking/test_connection.py",
    "tracking/mlflow_links.py": ("end_to_end/test_mlflow_ui.py", "shown.charts"),
    "tracking/mlflow_mapping.py": "tracking/test_mlflow_sync.py",
    "tracking/mlflow_run_index.py": "tracking/test_mlflow_requests.py",
    "tracking/mlflow_tags.py": "tracking/test_mlflow_sync.py",
    "tracking/mlflow_writer.py": "tracking/test_mlflow_sync.py",
    "tracking/model_artifact.py": "tracking/test_model_registry.py",
    "tracking/model_card.py": "security/test_words.py",
    "tracking/relocation.py": ("frozen/test_home.py", "artifact_places"),
    "training/denoiser_training.py": ("training/test_descriptor_trainer.py", "denoiser=DENOISER"),
    "training/inputs.py": "training/test_descriptor_trainer.py",
    "training/validation.py": "tracking/test_model_registry.py",
    "training/warm_start.py": "training/test_descriptor_trainer.py",
    "untrusted.py": "security/test_names.py",
    "workflows/describe_patches.py": ("cli/test_models.py", 'registered.run("describe"'),
    "workflows/evaluate_models.py": ("end_to_end/test_evaluate.py", 'home.run_here("evaluate"'),
    "workflows/observer.py": "workflows/test_resume_search.py",
    "workflows/promote_search.py": "end_to_end/test_promote.py",
    "workflows/publish_figures.py": ("end_to_end/test_main_job.py", "learning_curves"),
    "workflows/recorded_trial.py": "workflows/test_train_trial.py",
    "workflows/search_session.py": "workflows/test_run_search.py",
    "workflows/train_trial.py": ("end_to_end/test_refusals.py", '"train", path'),
}
"""Test file by module, where it is not the one of the module's name.

A file that reaches the module by a command has words that show it.
"""


def defined(path: Path) -> set[str]:
    """Names of the functions and classes that a module defines."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def modules() -> list[str]:
    """Modules that define a function or a class; the others hold constants, or former names."""
    found = (path for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))
    return sorted(str(path.relative_to(PACKAGE)) for path in found if defined(path))


def of_its_name(module: str) -> Path:
    path = Path(module)
    return TESTS / path.parent / f"test_{path.name}"


def is_named(module: str, text: str) -> bool:
    """True if a test imports or names a module, or something that it defines."""
    path = Path(module)
    dotted = ".".join(("hpsearch", *path.with_suffix("").parts))
    public = {name for name in defined(PACKAGE / path) if not name.startswith("_")}
    return dotted in text or any(re.search(rf"\b{n}\b", text) for n in {path.stem, *public})


@pytest.mark.parametrize("module", modules())
def test_a_module_is_tested(module: str) -> None:
    if of_its_name(module).is_file():
        return
    assert module in TESTED_IN, f"write {of_its_name(module)}, or name its test in TESTED_IN"
    entry = TESTED_IN[module]
    file, words = (entry, "") if isinstance(entry, str) else entry
    text = (TESTS / file).read_text()
    found = words in text if words else is_named(module, text)
    assert found, f"{file} neither imports nor names {module}, nor says {words!r}"


def test_no_entry_is_of_a_module_that_is_gone() -> None:
    assert set(TESTED_IN) - set(modules()) == set()


def test_a_test_of_something_else_does_not_count() -> None:
    assert not is_named("rng.py", "from hpsearch.data.noise import add_noise")
    assert is_named("rng.py", "from hpsearch.rng import rng_for")
    assert not is_named("promotion/score_cache.py", "the cache of scores")
